package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// start a server of somebody else's, and a connection to it.
func start(t *testing.T, o *server.Options) (url string, nc *client.Conn) {
	t.Helper()
	o.Host, o.Port, o.NoLog, o.NoSigs = "127.0.0.1", -1, true, true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(s.Shutdown)
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server does not start")
	}
	if nc, err = client.Connect(s.ClientURL()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return s.ClientURL(), nc
}

func open(t *testing.T, options map[string]any) sdk.Service {
	t.Helper()
	s, err := NewService(fakes.Runtime(t, &contract.Config{}, &fakes.Secrets{}, nil), fakes.JSON(t, options))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func call(t *testing.T, s sdk.Service, r *sdk.Request) (*sdk.Answer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return s.Call(ctx, r)
}

func request(query, body string) *sdk.Request {
	r := &sdk.Request{Method: "POST", Path: "/x", Query: query, Header: map[string][]string{"x-two": {"1", "2"}, "nats-rollup": {"all"}}}
	r.ContentType, r.Format, r.Data = "application/json", sdk.FormatJSON, []byte(body)
	r.Headers = map[string]string{"traceparent": "00-x", "unit": "7"}
	return r
}

func TestRequestAndAnswer(t *testing.T) {
	url, nc := start(t, &server.Options{})
	seen := make(chan *client.Msg, 1)
	if _, err := nc.Subscribe("persons.>", func(m *client.Msg) {
		seen <- m
		answer := &client.Msg{Subject: m.Reply, Data: []byte(`{"id":17}`), Header: client.Header{"Content-Type": {"application/person+json"}, "X-Served": {"a", "b"}}}
		_ = nc.PublishMsg(answer)
	}); err != nil {
		t.Fatal(err)
	}
	s := open(t, map[string]any{"servers": []string{url}, "subject": `persons.{headers["query-id"]}.{data.kind}`})
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := request("id=17", `{"kind":"full"}`)
	a, err := call(t, s, r)
	if err != nil {
		t.Fatal(err)
	}
	if a.Status != 200 || string(a.Data) != `{"id":17}` || a.ContentType != "application/person+json" || a.Format != sdk.FormatJSON || len(a.Header["x-served"]) != 2 {
		t.Errorf("%+v", a)
	}
	got := <-seen
	if got.Subject != "persons.17.full" || string(got.Data) != `{"kind":"full"}` {
		t.Errorf("%s %s", got.Subject, got.Data)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Metip-Method": "POST", "Metip-Path": "/x", "Metip-Query": "id=17", "Traceparent": "00-x", "X-Two": "1",
	} {
		if got.Header.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, got.Header.Get(name), want)
		}
	}
	if len(got.Header["X-Two"]) != 2 || got.Header.Get("Metip-Timeout-Ms") == "" || got.Header.Get("Nats-Rollup") != "" || len(r.Headers) != 2 {
		t.Errorf("%v %v", got.Header, r.Headers)
	}
	// What is inserted is one token, and cannot ask for something else.
	for _, query := range []string{"id=", "id=a.b", "id=*", "id=%3E", "id=a%20b", "x=1"} {
		var refused *sdk.CallError
		if _, err := call(t, s, request(query, `{"kind":"full"}`)); !errors.As(err, &refused) || refused.Status != 400 {
			t.Errorf("%s: %v", query, err)
		}
	}
}

func TestErrors(t *testing.T) {
	url, nc := start(t, &server.Options{MaxPayload: 2048, MaxPending: 4096})
	respond := func(subject string, header client.Header) {
		if _, err := nc.Subscribe(subject, func(m *client.Msg) {
			_ = nc.PublishMsg(&client.Msg{Subject: m.Reply, Header: header, Data: []byte("plain")})
		}); err != nil {
			t.Fatal(err)
		}
	}
	respond("code.409", client.Header{headerError: {"409"}, "Nats-Service-Error": {"taken"}})
	respond("code.odd", client.Header{headerError: {"many"}})
	respond("code.none", nil)
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	s := open(t, map[string]any{"servers": []string{url}, "subject": `code.{headers["query-n"]}`, "contentType": "text/plain"})
	for n, want := range map[string]int{"409": 409, "odd": 500, "none": 200} {
		a, err := call(t, s, request("n="+n, "{}"))
		if err != nil || a.Status != want || string(a.Data) != "plain" || a.ContentType != "text/plain" {
			t.Errorf("%s: %+v %v", n, a, err)
		}
		if n == "409" && a.Header["nats-service-error"][0] != "taken" {
			t.Error(a.Header)
		}
	}
	for name, r := range map[string]*sdk.Request{"503 nobody": request("n=nobody", "{}"), "413 large": request("n=none", strings.Repeat("x", 3000)), "400 path": {Method: "GET", Path: "/../x", Query: "n=none"}} {
		var refused *sdk.CallError
		if _, err := call(t, s, r); !errors.As(err, &refused) || !strings.HasPrefix(name, fmt.Sprint(refused.Status)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, options := range []string{
		`{}`, `{"servers":["nats://a"]}`, `{"servers":["http://a"],"subject":"a"}`, `{"servers":["nats://u:p@a"],"subject":"a"}`, `{"servers":["nats://a","tls://b"],"subject":"a"}`,
		`{"servers":["nats://a"],"subject":"a.>"}`, `{"servers":["nats://a"],"subject":"a..b"}`, `{"servers":["nats://a"],"subject":"$SYS.x"}`, `{"servers":["nats://a"],"subject":"{x"}`,
		`{"servers":["nats://a"],"subject":"a","inboxPrefix":"a b"}`, `{"servers":["nats://a"],"subject":"a","queue":"x"}`,
	} {
		if _, err := NewService(fakes.Runtime(t, &contract.Config{}, &fakes.Secrets{}, nil), []byte(options)); err == nil {
			t.Errorf("%s is taken", options)
		}
	}
	config := &contract.Config{Auth: contract.Auth{Kind: contract.AuthHMAC}}
	if _, err := NewService(fakes.Runtime(t, config, &fakes.Secrets{}, nil), []byte(`{"servers":["nats://a"],"subject":"a"}`)); err == nil {
		t.Error("a signature is taken")
	}
}
