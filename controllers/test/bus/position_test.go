package bus_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus/bustest"
)

// The position of a source is its own to write and to read, within the state that the relay keeps there too, and goes without it.
func TestPositionsAreTheSourcesOwn(t *testing.T) {
	b := bustest.Start(t, bustest.Options{})
	s := shortLived()
	f := newFlow(t, b, nil, s)
	if list, err := f.session.Positions(t.Context(), "ns", "intg"); err != nil || len(list) != 0 {
		t.Fatalf("without state: %v %v", list, err)
	}
	if err := f.session.PurgePosition(t.Context(), "ns", "intg", "uid-1"); err != nil {
		t.Errorf("purging what is not there: %v", err)
	}
	s.StateMaxBytes = 16 << 20
	if _, err := f.session.EnsureStreams(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	ask := func(nc *nats.Conn, to, expected, body string) (string, error) {
		m, err := nc.RequestMsg(&nats.Msg{Subject: to, Header: nats.Header{"Nats-Expected-Last-Subject-Sequence": {expected}}, Data: []byte(body)}, time.Second)
		if err != nil {
			return "", err
		}
		return m.Header.Get("Status") + string(m.Data), nil
	}
	var users []*nats.Conn
	for n := range 2 {
		uid := fmt.Sprintf("uid-%d", n)
		nc := f.user(t, fmt.Sprintf("poll%d", n), contract.SourcePermissions("ns", "intg", fmt.Sprintf("poll%d", n)).WithPosition("ns", "intg", uid))
		users = append(users, nc)
		if answer, err := ask(nc, contract.PositionSubject("ns", "intg", uid), "0", uid); err != nil {
			t.Fatal(answer, err)
		}
		if answer, err := ask(nc, contract.PositionGet("ns", "intg", uid), "", ""); err != nil || answer != uid {
			t.Errorf("reading its own: %q %v", answer, err)
		}
	}
	document := contract.StatePrefix("ns", "intg", "route", "db") + "deduplicate." + contract.StateToken("k")
	relay := f.user(t, contract.RelayName("intg"), contract.RelayPermissions("ns", "intg", nil))
	if answer, err := ask(relay, document, "0", "relay's"); err != nil {
		t.Fatal(answer, err)
	}
	for _, subject := range []string{contract.PositionSubject("ns", "intg", "uid-1"), contract.PositionGet("ns", "intg", "uid-1"), document} {
		if answer, err := ask(users[0], subject, "1", "x"); err == nil {
			t.Errorf("another source: %s: %q", subject, answer)
		}
	}
	if list, err := f.session.Positions(t.Context(), "ns", "intg"); err != nil || !slices.Equal(list, []types.UID{"uid-0", "uid-1"}) {
		t.Errorf("%v %v", list, err)
	}
	if err := f.session.PurgePosition(t.Context(), "ns", "intg", "uid-0"); err != nil {
		t.Fatal(err)
	}
	if list, err := f.session.Positions(t.Context(), "ns", "intg"); err != nil || !slices.Equal(list, []types.UID{"uid-1"}) {
		t.Errorf("after a purge: %v %v", list, err)
	}
	if answer, err := ask(relay, contract.APIPrefix+".DIRECT.GET."+contract.StateStream("ns", "intg"), "", fmt.Sprintf(`{"last_by_subj":%q}`, document)); err != nil || answer != "relay's" {
		t.Errorf("what the relay keeps: %q %v", answer, err)
	}
}
