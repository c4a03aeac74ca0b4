// Command ref is the yardstick: the smallest pipeline that keeps the same promise as MetIP's, with net/http and nats.go and
// nothing else. `ref source` accepts a request, publishes the body, awaits the broker's confirmation and answers 202; `ref sink`
// pulls, posts, and acknowledges what was answered with 2xx. It is kept minimal on purpose.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

var (
	url     = flag.String("nats", "", "URL of the broker")
	creds   = flag.String("creds", "", "file with the broker user; empty means none")
	ca      = flag.String("ca", "", "file with the broker's CA; empty means none")
	prefix  = flag.String("api-prefix", "", "prefix of the JetStream API; empty means the server's own")
	inbox   = flag.String("inbox", "", "inbox prefix; empty means the client's own")
	listen  = flag.String("listen", "", "address of the source's listener, or of the sink's /readyz")
	subject = flag.String("subject", "", "source: the subject to publish")
	stream  = flag.String("stream", "", "sink: the stream")
	durable = flag.String("durable", "", "sink: the durable consumer")
	target  = flag.String("target", "", "sink: where to post")
	workers = flag.Int("workers", 32, "sink: posts in flight")
)

func main() {
	role := os.Args[1]
	if err := flag.CommandLine.Parse(os.Args[2:]); err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	js, err := connect()
	if err != nil {
		log.Fatal(err)
	}
	if role == "source" {
		http.HandleFunc("POST /", accept(js))
	} else {
		go func() { log.Fatal(deliver(ctx, js)) }()
	}
	http.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{Addr: *listen}
	go func() { <-ctx.Done(); _ = server.Close() }()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
}

func connect() (jetstream.JetStream, error) {
	var options []nats.Option
	if *creds != "" {
		options = append(options, nats.UserCredentials(*creds))
	}
	if *ca != "" {
		options = append(options, nats.RootCAs(*ca))
	}
	if *inbox != "" {
		options = append(options, nats.CustomInboxPrefix(*inbox))
	}
	nc, err := nats.Connect(*url, options...)
	if err != nil {
		return nil, err
	}
	if *prefix != "" {
		return jetstream.NewWithAPIPrefix(nc, *prefix)
	}
	return jetstream.New(nc)
}

func accept(js jetstream.JetStream) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if _, err := js.Publish(r.Context(), *subject, body); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	}
}

func deliver(ctx context.Context, js jetstream.JetStream) error {
	consumer, err := js.Consumer(ctx, *stream, *durable)
	if err != nil {
		return err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: *workers}}
	var group sync.WaitGroup
	for range *workers {
		group.Go(func() {
			for {
				m, err := messages.Next()
				if errors.Is(err, jetstream.ErrMsgIteratorClosed) {
					return
				}
				if err != nil {
					log.Print(err)
					continue
				}
				r, err := client.Post(*target, "application/json", bytes.NewReader(m.Data()))
				if err != nil {
					_ = m.Nak()
					continue
				}
				_, _ = io.Copy(io.Discard, r.Body)
				_ = r.Body.Close()
				if r.StatusCode/100 != 2 {
					_ = m.Nak()
					continue
				}
				_ = m.Ack()
			}
		})
	}
	group.Wait()
	return ctx.Err()
}
