package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/sdk"
)

func (a *asked) listens(t *testing.T, n int) {
	t.Helper()
	fakes.Eventually(t, within, fmt.Sprintf("it listens to %d channels", n), func() bool {
		return len(server.Query(t, a.database, fmt.Sprintf("SELECT 1 FROM pg_stat_activity WHERE usename = '%s' AND query LIKE 'LISTEN%%'", a.database))) > 0
	})
}

func newListening(t *testing.T, channels ...string) *asked {
	t.Helper()
	return newAsked(t, "CREATE TABLE t (id int)", map[string]any{"notify": map[string]any{"channels": channels}})
}

// Payloads become messages, as they are where they are JSON.
func TestNotifications(t *testing.T) {
	a := newListening(t, "cases", `Other Channel`)
	bus := &fakes.Publisher{}
	state, _ := a.run(t, bus)
	wantState(t, state)
	a.listens(t, 2)
	a.exec(t, `NOTIFY cases, '{"id": 7}'; NOTIFY "Other Channel", 'plain "é"'; NOTIFY cases; NOTIFY elsewhere, '1'; NOTIFY cases, '{"id": 8}'`)
	want := []string{`{"id": 7}`, `"plain \"é\""`, `""`, `{"id": 8}`}
	if diff := cmp.Diff(want, rowsOn(t, bus, 4)); diff != "" {
		t.Error(diff)
	}
	m := bus.Stored()[1]
	if diff := cmp.Diff(map[string]string{"pgchannel": "Other Channel"}, m.Headers); diff != "" || m.Subject != "Other Channel" || m.Time.IsZero() || m.ContentType != "application/json" {
		t.Errorf("%+v %s", m, diff)
	}
	for _, m := range bus.Stored() {
		if !json.Valid(m.Data) {
			t.Errorf("%q", m.Data)
		}
	}
	// What is said twice comes twice, in another transaction.
	a.exec(t, `NOTIFY cases, '{"id": 7}'`)
	rowsOn(t, bus, 5)
}

func TestNotificationsAsText(t *testing.T) {
	a := newListening(t, "cases")
	a.format = sdk.FormatText
	bus := &fakes.Publisher{}
	a.run(t, bus)
	a.listens(t, 1)
	a.exec(t, `NOTIFY cases, 'as it is'`)
	fakes.Eventually(t, within, "it comes", func() bool { return len(bus.Stored()) == 1 })
	if m := bus.Stored()[0]; string(m.Data) != "as it is" || m.ContentType != "text/plain; charset=utf-8" {
		t.Errorf("%+v", m)
	}
}

// What was heard is tried again until the bus has it, also at the end; what is sent while nobody listens is lost, as the page says.
func TestNotificationsWait(t *testing.T) {
	a := newListening(t, "cases")
	bus := &fakes.Publisher{}
	bus.Fail(errors.New("no servers"))
	_, stop := a.run(t, bus)
	a.listens(t, 1)
	a.exec(t, `DO $$ BEGIN FOR i IN 1..300 LOOP PERFORM pg_notify('cases', i::text); END LOOP; END $$`)
	fakes.Eventually(t, within, "it tries", func() bool { return bus.Calls() > 2 })
	bus.Fail(nil)
	for i, body := range rowsOn(t, bus, 300) {
		if body != fmt.Sprint(i+1) {
			t.Fatalf("message %d is %s", i, body)
		}
	}
	release := bus.Hold()
	a.exec(t, `NOTIFY cases, '301'`)
	fakes.Eventually(t, within, "it is on its way", func() bool { n, _ := bus.Waiting(); return n > 0 })
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	select {
	case <-stopped:
		t.Error("the source ended with a notification under way")
	case <-time.After(200 * time.Millisecond):
	}
	release()
	<-stopped
	rowsOn(t, bus, 301)
	a.exec(t, `NOTIFY cases, 'nobody hears it'`)
	a.run(t, bus)
	a.listens(t, 1)
	a.exec(t, `NOTIFY cases, '302'`)
	rowsOn(t, bus, 302)
}

// What the bus does not take is bounded, and the rest is dropped: the server's queue serves others too.
func TestNotificationsAreBounded(t *testing.T) {
	a := newListening(t, "cases")
	bus := &fakes.Publisher{}
	bus.Fail(sdk.ErrFull)
	a.run(t, bus)
	a.listens(t, 1)
	a.exec(t, fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP PERFORM pg_notify('cases', i::text); END LOOP; END $$`, maxNotes+500))
	fakes.Eventually(t, within, "what is too much is dropped, and counted", func() bool { return a.gauges["metip_connector_notifications_dropped"]() == 500 })
	if usage := server.Query(t, a.database, "SELECT pg_notification_queue_usage()")[0][0]; usage != "0" {
		t.Error("the server's queue holds what was not read:", usage)
	}
	bus.Fail(nil)
	fakes.Eventually(t, within, "the rest comes", func() bool { return len(bus.Stored()) == maxNotes })
	a.exec(t, `NOTIFY cases, '1'`)
	fakes.Eventually(t, within, "it goes on", func() bool { return len(bus.Stored()) == maxNotes+1 })
}

// A listener that loses its connection listens again, with the password that is right then; one that is suspended does not listen.
func TestListenerReconnects(t *testing.T) {
	a := newListening(t, "cases")
	bus := &fakes.Publisher{}
	bus.Fail(sdk.ErrSuspended)
	state, _ := a.run(t, bus)
	wantState(t, state)
	a.exec(t, `NOTIFY cases, '0'`)
	bus.Fail(nil)
	a.listens(t, 1)
	a.exec(t, `NOTIFY cases, '1'`)
	rowsOn(t, bus, 1)
	server.Exec(t, "postgres", "ALTER ROLE "+a.database+" PASSWORD 'other'")
	a.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '"+a.database+"'")
	wantState(t, state, "28P01")
	if err, _ := state.State(); strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
	a.secrets.Set(map[string]string{"password": "other"})
	wantState(t, state)
	a.listens(t, 1)
	a.exec(t, `NOTIFY cases, '2'`)
	rowsOn(t, bus, 2)
}
