package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
)

// envPod holds the file with the options of a child that is to be a pod.
const envPod = "METIP_TEST_POD"

func TestMain(m *testing.M) {
	enginetest.Main()
	if file := os.Getenv(envPod); file != "" {
		if err := runChild(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child is a pod that is a process of its own, as a kubelet starts it again after each end.
type child struct {
	t       testing.TB
	file    string
	options childOptions
	process *enginetest.Process
}

// childOptions are what a child reads.
type childOptions struct {
	Config                *contract.Config
	Creds, Listen, Health string
	Pod, Secrets          string
}

// startChild runs a pod with the scripted system in a process of its own, and waits until it is ready.
func startChild(t testing.TB, o podOptions) *child {
	t.Helper()
	c := &child{t: t, file: filepath.Join(t.TempDir(), "pod.json"), options: childOptions{
		Config: o.config, Creds: o.creds, Listen: freeAddress(t), Health: freeAddress(t), Pod: "pod-1", Secrets: t.TempDir(),
	}}
	raw, err := json.Marshal(c.options)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	c.start()
	return c
}

func (c *child) start() {
	c.t.Helper()
	c.process = enginetest.Spawn(c.t, "pod "+c.options.Config.Connector.Name, envPod+"="+c.file)
	within(c.t, 30*time.Second, "the child is ready", func() bool {
		r, err := http.Get("http://" + c.options.Health + "/readyz")
		if err != nil {
			return false
		}
		_ = r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
}

// restart after a kill -9.
func (c *child) restart() {
	c.t.Helper()
	c.process.Kill()
	c.start()
}

func runChild(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var o childOptions
	if err := json.Unmarshal(raw, &o); err != nil {
		return err
	}
	system := sdk.System{
		Name:   "test",
		Source: func(rt sdk.Runtime, _ json.RawMessage) (sdk.Source, error) { return &scriptedSource{rt: rt}, nil },
		Sink: func(_ sdk.Runtime, options json.RawMessage) (sdk.Sink, error) {
			s := &postingSink{}
			return s, json.Unmarshal(options, &s.url)
		},
	}
	e, err := New(Options{
		Config: o.Config, System: system, Pod: o.Pod, CredsFile: o.Creds, SystemDir: o.Secrets, ListenAddress: o.Listen, HealthAddress: o.Health,
		AllowLoopback: true, Linger: 10 * time.Millisecond, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		return err
	}
	scriptedEngine = e
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return e.Run(ctx)
}

// scriptedEngine is the child's, for the script to look into.
var scriptedEngine *Engine

// Stages at which a scripted source dies.
const (
	dieBefore = "before" // nothing is published yet
	dieSent   = "sent"   // the broker has the message, its confirmation has not been read
	dieStored = "stored" // the broker has confirmed it, the caller has not been told
)

// scriptedSource publishes a message for each POST /<id>, and answers 200 once that is confirmed. It dies where the query says so.
type scriptedSource struct{ rt sdk.Runtime }

func (s *scriptedSource) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	l, err := s.rt.Listen(ctx)
	if err != nil {
		return err
	}
	state.System(nil)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		die := r.URL.Query().Get("die")
		if die == dieBefore {
			dieNow()
		}
		m := event(strings.TrimPrefix(r.URL.Path, "/"))
		if size := r.URL.Query().Get("large"); size != "" {
			if err := publishLarge(r.Context(), bus, m.ID, size, die); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
			return
		}
		if die == dieSent {
			go func() { _ = bus.Publish(r.Context(), m); dieNow() }()
			dieSending("evt.")
		}
		err := bus.Publish(r.Context(), m)
		if die == dieStored {
			dieNow()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})}
	go func() { _ = server.Serve(l) }()
	<-ctx.Done()
	return server.Close()
}

// dieSending waits until a message is under way to a subject that begins so, and the server has read it.
func dieSending(prefix string) {
	nc := scriptedEngine.conn.nc
	for {
		sent := nc.Stats().OutMsgs
		if !awaits(prefix) {
			continue
		}
		for nc.Stats().OutMsgs == sent && awaits(prefix) { // it is waited for a moment before it is sent
			continue
		}
		_ = nc.Flush()
		dieNow()
	}
}

// awaits tells whether a confirmation is awaited of a subject that begins so.
func awaits(prefix string) bool {
	r := scriptedEngine.replies
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.waiting {
		if strings.HasPrefix(w.subject, prefix) {
			return true
		}
	}
	return false
}

func dieNow() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// postingSink posts each message's id to a URL; 200 confirms it, 422 rejects it, and at 205 it dies.
type postingSink struct{ url string }

func (s *postingSink) Operation(json.RawMessage) (sdk.Operation, error) { return s, nil }
func (s *postingSink) Close() error                                     { return nil }
func (s *postingSink) MaxBatch() int                                    { return 1 }

func (s *postingSink) Check(ctx context.Context) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		return sdk.Unavailable(contract.ReasonConnectionFailed, err)
	}
	return c.Close()
}

func (s *postingSink) Write(ctx context.Context, batch []*sdk.Delivery) []error {
	results := make([]error, len(batch))
	for i, d := range batch {
		status, err := s.post(ctx, d)
		switch {
		case err != nil:
			results[i] = sdk.Unavailable(contract.ReasonConnectionFailed, err)
		case status == http.StatusResetContent:
			dieNow() // the target has confirmed it, the broker does not know
		case status == http.StatusUnprocessableEntity:
			results[i] = sdk.Permanentf("status %d", status)
		case status != http.StatusOK:
			results[i] = fmt.Errorf("status %d", status)
		}
	}
	return results
}

// Streams implements sdk.Streaming.
func (s *postingSink) Streams() bool { return true }

// post the id, and the body of a claim.
func (s *postingSink) post(ctx context.Context, d *sdk.Delivery) (int, error) {
	if d.Claim == nil {
		return postTo(ctx, s.url+"/"+d.ID)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/"+d.ID, d.Claim.Open(ctx))
	if err != nil {
		return 0, err
	}
	request.ContentLength = d.Claim.Size()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

func postTo(ctx context.Context, url string) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}
