package engine

import (
	"encoding/json"
	"errors"
	"sort"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// reportSpacing is the shortest time between two reports.
const reportSpacing = 100 * time.Millisecond

// systemState is the state of the connection to the system. It is the sdk.Reporter of a source.
type systemState struct {
	mu      sync.Mutex
	err     error
	pending bool
	since   time.Time
	changed func()
}

func newSystemState(changed func()) *systemState {
	return &systemState{pending: true, since: time.Now(), changed: changed}
}

// System implements sdk.Reporter.
func (s *systemState) System(err error) {
	s.mu.Lock()
	same := !s.pending && sameState(s.err, err)
	if !same {
		if s.pending || (s.err == nil) != (err == nil) || reasonOf(s.err) != reasonOf(err) {
			s.since = time.Now()
		}
		s.err, s.pending = err, false
	}
	s.mu.Unlock()
	if !same {
		s.changed()
	}
}

func (s *systemState) get() (error, bool, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err, s.pending, s.since
}

func sameState(a, b error) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return reasonOf(a) == reasonOf(b) && a.Error() == b.Error()
}

// reasonOf an error: its own if it is Unavailable.
func reasonOf(err error) string {
	var u *sdk.UnavailableError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &u) && u.Reason != "":
		return u.Reason
	case errors.Is(err, sdk.ErrFull):
		return contract.ReasonStreamFull
	default:
		return contract.ReasonSystemError
	}
}

// state makes a contract.State.
func state(err error, reason string, since time.Time) contract.State {
	if err == nil {
		return contract.State{OK: true, Since: since.UTC().Truncate(time.Second)}
	}
	return contract.State{Reason: reason, Message: message(err), Since: since.UTC().Truncate(time.Second)}
}

// message of an error, on one line and not too long.
func message(err error) string {
	s := strings.Join(strings.Fields(strings.ToValidUTF8(err.Error(), "?")), " ")
	if len(s) <= contract.MaxReportMessage {
		return s
	}
	cut := contract.MaxReportMessage - len("…")
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// reports publishes what the pod says of itself: soon after every change, and every contract.ReportInterval.
type reports struct {
	subject string
	conn    *connection
	collect func() contract.Report
	wake    chan struct{}

	mu       sync.Mutex
	started  time.Time
	sequence uint64
	draining bool
}

func newReports(c *contract.Config, pod string, conn *connection) *reports {
	return &reports{subject: contract.StatusSubject(c.Connector.Namespace, c.Connector.Name, pod), conn: conn, wake: make(chan struct{}, 1), started: time.Now().UTC()}
}

// changed asks for a report soon.
func (r *reports) changed() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *reports) run(stop <-chan struct{}) {
	tick := time.NewTicker(contract.ReportInterval)
	defer tick.Stop()
	for {
		r.send()
		select {
		case <-stop:
			return
		case <-time.After(reportSpacing):
		}
		select {
		case <-stop:
			return
		case <-r.wake:
		case <-tick.C:
		}
	}
}

// drain makes this and every further report a draining one.
func (r *reports) drain() {
	r.mu.Lock()
	r.draining = true
	r.mu.Unlock()
	r.send()
}

func (r *reports) send() {
	if !r.conn.isUp() {
		return
	}
	report := r.collect()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sequence++
	report.Started, report.Sequence, report.Draining = r.started, r.sequence, r.draining
	if raw, err := encodeReport(report); err == nil {
		_ = r.conn.nc.Publish(r.subject, raw)
	}
}

// encodeReport keeps within contract.MaxReportSize: Routes that do not fit are only counted.
func encodeReport(r contract.Report) ([]byte, error) {
	sort.Slice(r.Routes, func(i, j int) bool {
		a, b := r.Routes[i], r.Routes[j]
		return a.Route < b.Route || a.Route == b.Route && a.Destination < b.Destination
	})
	if n := len(r.Routes); n > contract.MaxReportedRoutes {
		r.MoreRoutes += n - contract.MaxReportedRoutes
		r.Routes = r.Routes[:contract.MaxReportedRoutes]
	}
	for {
		raw, err := json.Marshal(r)
		if err != nil || len(raw) <= contract.MaxReportSize || len(r.Routes) == 0 {
			return raw, err
		}
		r.MoreRoutes++
		r.Routes = r.Routes[:len(r.Routes)-1]
	}
}
