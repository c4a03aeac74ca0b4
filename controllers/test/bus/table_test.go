package bus_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/bus/bustest"
)

// A table is written by the relay alone and read by those whose Routes name it; no message in it removes another's.
func TestTablesAreGrantedOneByOne(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	s := shortLived()
	f := newFlow(t, b, nil, s)
	s.Tables = []bus.Table{{Name: "wards", MaxBytes: 1 << 20}, {Name: "codes", MaxBytes: 2 << 20, MaxAge: time.Minute}}
	for _, want := range []bool{true, false} {
		if changed, err := f.session.EnsureStreams(t.Context(), s); err != nil || changed != want {
			t.Fatalf("changed %v, %v", changed, err)
		}
	}
	wards := contract.TableRef{Integration: "intg", Table: "wards"}
	relay := f.user(t, contract.RelayName("intg"), contract.RelayPermissions("ns", "intg", nil).WithTables("ns", nil, []contract.TableRef{wards}))
	reader := f.user(t, "reader", contract.SinkPermissions("ns", "reader", nil).WithTables("ns", []contract.TableRef{wards}, nil))
	subject := func(table, key string) string {
		return contract.TablePrefix("ns", "intg", table) + contract.StateToken(key)
	}
	get := func(table, key string) string { return contract.TableGet("ns", "intg", table, subject(table, key)) }
	ask := func(nc *nats.Conn, to string, header nats.Header, body string) (string, error) {
		m, err := nc.RequestMsg(&nats.Msg{Subject: to, Header: header, Data: []byte(body)}, time.Second)
		if err != nil {
			return "", err
		}
		return m.Header.Get("Status") + string(m.Data), nil
	}
	for _, key := range []string{"a", "b"} {
		if answer, err := ask(relay, subject("wards", key), nil, key); err != nil {
			t.Fatal(answer, err)
		}
	}
	for _, nc := range []*nats.Conn{relay, reader} {
		if answer, err := ask(nc, get("wards", "a"), nil, ""); err != nil || answer != "a" {
			t.Errorf("reading an entry: %q %v", answer, err)
		}
	}
	if answer, err := ask(reader, get("wards", "c"), nil, ""); err != nil || answer != "404" {
		t.Errorf("reading what is not there: %q %v", answer, err)
	}
	for _, c := range []struct {
		what    string
		nc      *nats.Conn
		subject string
	}{
		{"the reader writes", reader, subject("wards", "a")}, {"the reader reads another table", reader, get("codes", "a")},
		{"the reader reads by a request of its own", reader, contract.APIPrefix + ".DIRECT.GET." + contract.TableStream("ns", "intg", "wards")},
		{"the relay writes a table that no Route fills", relay, subject("codes", "a")}, {"the relay reads it", relay, get("codes", "a")},
		{"a sink reads", f.sink, get("wards", "a")}, {"a source writes", f.source, subject("wards", "a")},
	} {
		if answer, err := ask(c.nc, c.subject, nil, `{"last_by_subj":"`+subject("wards", "a")+`"}`); err == nil {
			t.Errorf("%s: %q", c.what, answer)
		}
	}
	if answer, err := ask(relay, subject("wards", "a"), nats.Header{"Nats-Rollup": {"all"}}, "x"); err != nil || answer == "" {
		t.Errorf("a roll-up: %q %v", answer, err)
	}
	if answer, err := ask(reader, get("wards", "b"), nil, ""); err != nil || answer != "b" {
		t.Errorf("after a roll-up of another key: %q %v", answer, err)
	}

	state, err := f.session.StreamsState(t.Context(), "ns", "intg")
	if err != nil || len(state.Tables) != 2 || state.Tables[0].Name != "codes" || state.Tables[0].MaxBytes != 2<<20 || state.Tables[1].Entries != 2 || state.Tables[1].Bytes == 0 {
		t.Fatalf("the state is %+v, %v", state, err)
	}
	s.Tables[0].MaxBytes, s.Tables[0].MaxAge = 4<<20, time.Hour
	if changed, err := f.session.EnsureStreams(t.Context(), s); err != nil || !changed {
		t.Fatalf("changed %v, %v", changed, err)
	}
	stream := func(table string) (*jetstream.StreamInfo, error) {
		stream, err := f.admin.Stream(t.Context(), contract.TableStream("ns", "intg", table))
		if err != nil {
			return nil, err
		}
		return stream.CachedInfo(), nil
	}
	info, err := stream("wards")
	if err != nil || info.Config.MaxBytes != 4<<20 || info.Config.MaxAge != time.Hour || info.State.Msgs != 2 || info.Config.AllowRollup {
		t.Errorf("after the change: %+v, %v", info, err)
	}
	if err := f.session.DeleteTable(t.Context(), "ns", "intg", "wards"); err != nil {
		t.Fatal(err)
	}
	if _, err := stream("wards"); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("the table is left behind: %v", err)
	}
	if err := f.session.DeleteTable(t.Context(), "ns", "intg", "wards"); err != nil {
		t.Errorf("deleting what is not there: %v", err)
	}
	if err := f.session.DeleteStreams(t.Context(), "ns", "intg"); err != nil {
		t.Fatal(err)
	}
	if _, err := stream("codes"); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("the other is left behind: %v", err)
	}
}

// Entries hold the sequences of the messages that made them: a stream of messages that is made anew begins beyond them.
func TestTablesOutliveTheStreamOfTheirMessages(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	s := shortLived()
	s.Tables = []bus.Table{{Name: "wards", MaxBytes: 1 << 20}}
	f := newFlow(t, b, nil, s)
	if _, err := f.admin.Publish(t.Context(), contract.TablePrefix("ns", "intg", "wards")+"x", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := f.admin.DeleteStream(t.Context(), contract.EventStream("ns", "intg")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.session.EnsureStreams(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	stream, err := f.admin.Stream(t.Context(), contract.EventStream("ns", "intg"))
	if err != nil || stream.CachedInfo().State.FirstSeq < 1e15 {
		t.Errorf("the new stream begins at %+v, %v", stream.CachedInfo().State, err)
	}
}
