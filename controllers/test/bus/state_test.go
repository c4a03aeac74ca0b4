package bus_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus/bustest"
)

// The state of an Integration is its relay's alone to write and to read; each document is written once for each version, and forgotten in time.
func TestStateIsTheRelaysOwn(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	s := shortLived()
	f := newFlow(t, b, nil, s)
	name := contract.StateStream("ns", "intg")
	if _, err := f.admin.Stream(t.Context(), name); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("there is state though nobody keeps any: %v", err)
	}
	s.StateMaxBytes = 16 << 20
	for _, want := range []bool{true, false} {
		if changed, err := f.session.EnsureStreams(t.Context(), s); err != nil || changed != want {
			t.Fatalf("changed %v, %v", changed, err)
		}
	}
	relay := f.user(t, contract.RelayName("intg"), contract.RelayPermissions("ns", "intg", nil))
	subject := contract.StatePrefix("ns", "intg", "uid", "db") + "deduplicate." + contract.StateToken("k")
	ask := func(nc *nats.Conn, to string, header nats.Header, body string) (string, error) {
		m, err := nc.RequestMsg(&nats.Msg{Subject: to, Header: header, Data: []byte(body)}, time.Second)
		if err != nil {
			return "", err
		}
		return m.Header.Get("Status") + string(m.Data), nil
	}
	get := contract.APIPrefix + ".DIRECT.GET." + name
	last := fmt.Sprintf(`{"last_by_subj":%q}`, subject)
	first := nats.Header{"Nats-Expected-Last-Subject-Sequence": {"0"}, "Nats-TTL": {"2s"}}
	if answer, err := ask(relay, subject, first, "one"); err != nil || !json.Valid([]byte(answer)) {
		t.Fatal(answer, err)
	}
	var refused struct {
		Error struct {
			ErrCode int `json:"err_code"`
		}
	}
	if answer, err := ask(relay, subject, first, "two"); err != nil || json.Unmarshal([]byte(answer), &refused) != nil || refused.Error.ErrCode != 10071 {
		t.Errorf("a second first document: %s %v", answer, err)
	}
	if answer, err := ask(relay, get, nil, last); err != nil || answer != "one" {
		t.Errorf("reading it: %q %v", answer, err)
	}
	for _, c := range []struct {
		what    string
		nc      *nats.Conn
		subject string
	}{
		{"a source writes", f.source, subject}, {"a sink writes", f.sink, subject}, {"a sink reads", f.sink, get}, {"a source reads", f.source, get},
		{"the relay writes another's", relay, contract.StatePrefix("ns", "other", "uid", "db") + "x"},
		{"the relay reads messages", relay, contract.APIPrefix + ".DIRECT.GET." + contract.EventStream("ns", "intg")},
	} {
		if answer, err := ask(c.nc, c.subject, nil, last); err == nil {
			t.Errorf("%s: %q", c.what, answer)
		}
	}
	eventually(t, 30*time.Second, func() string {
		if answer, err := ask(relay, get, nil, last); err != nil || answer != "404" {
			return fmt.Sprint(answer, err)
		}
		return ""
	})
	if _, err := ask(relay, subject, nil, "again"); err != nil {
		t.Fatal(err)
	}
	if err := f.session.PurgeState(t.Context(), "ns", "intg", "uid", "db"); err != nil {
		t.Fatal(err)
	}
	if answer, err := ask(relay, get, nil, last); err != nil || answer != "404" {
		t.Errorf("after the purge: %q %v", answer, err)
	}
	if err := f.session.DeleteStreams(t.Context(), "ns", "intg"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.admin.Stream(t.Context(), name); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("the state is left behind: %v", err)
	}
	if err := f.session.PurgeState(t.Context(), "ns", "intg", "uid", "db"); err != nil {
		t.Errorf("purging what is not there: %v", err)
	}
}
