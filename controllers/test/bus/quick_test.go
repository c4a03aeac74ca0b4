package bus_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/bus/bustest"
)

// lines that were written or heard.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, line)
}

func (l *lines) list() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.all...)
}

// with counts those that contain a text.
func with(list []string, text string) (n int) {
	for _, line := range list {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// TestQuickLooksAskForWhatIsHeldUpOnly: while a relay waits for room its stream is looked at every two seconds, and the others, with their claims, no
// more often than otherwise. What is said is said once.
func TestQuickLooksAskForWhatIsHeldUpOnly(t *testing.T) {
	const others = 20
	said, asked := &lines{}, &lines{}
	b := bustest.Start(t, bustest.Options{MaxFileStore: 8 << 30, Log: funcr.New(func(_, line string) { said.add(line) }, funcr.Options{})})
	s := shortLived()
	s.MaxBytes = 1 << 30 // four steps of a hundredth are its reserve
	f := newFlow(t, b, func(p *bus.Params) { p.TrimInterval = 7 * time.Second }, s)
	var claims []string
	for i := range others {
		o := withClaims()
		o.Integration, o.MaxBytes, o.ClaimsMaxBytes = fmt.Sprintf("other%d", i), 1<<20, 1<<20
		if _, err := f.session.EnsureStreams(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		claims = append(claims, contract.ClaimStream("ns", o.Integration))
	}
	r := &relay{nc: f.user(t, contract.RelayName("intg"), contract.RelayPermissions("ns", "intg", nil))}
	listener, _ := b.Admin()
	if _, err := listener.Subscribe("$JS.API.>", func(m *nats.Msg) { asked.add(strings.TrimPrefix(m.Subject, "$JS.API.")) }); err != nil {
		t.Fatal(err)
	}
	if err := listener.Flush(); err != nil {
		t.Fatal(err)
	}
	beat := time.Now()
	held := func(full bool) {
		if time.Since(beat) > time.Second {
			beat = time.Now()
			r.report(full)
		}
	}
	eventually(t, 90*time.Second, func() string {
		held(true)
		if with(said.list(), "reserve is used up") == 0 {
			return "the reserve is not used up"
		}
		return ""
	})
	// From one look at everything to the next, twice.
	first := with(asked.list(), "STREAM.LIST")
	eventually(t, 90*time.Second, func() string {
		held(true)
		if n := with(asked.list(), "STREAM.LIST"); n < first+3 {
			return fmt.Sprintf("%d looks at everything of %d", n, first+3)
		}
		return ""
	})
	eventually(t, 90*time.Second, func() string {
		held(false)
		if with(said.list(), "lowered") == 0 {
			return "the stream is not lowered"
		}
		return ""
	})
	for _, text := range []string{"raised a full stream", "reserve is used up", "lowered a stream", "was not trimmed"} {
		if n, want := with(said.list(), text), 1; n != want && text != "was not trimmed" || n > want {
			t.Errorf("%q is said %d times:\n%s", text, n, strings.Join(said.list(), "\n"))
		}
	}
	for _, look := range between(asked.list(), first, first+2) {
		for _, name := range claims {
			if n := with(look, "STREAM.INFO."+name); n != 1 {
				t.Errorf("%s was asked for %d times between two looks at everything", name, n)
			}
		}
		whole, quick, requests := 1, 0, 0
		for i, subject := range look {
			if strings.Contains(subject, "other") {
				whole, quick, requests = i+1, 0, 0
				continue
			}
			requests++
			if subject == "STREAM.INFO.ns_intg" {
				quick++
			}
		}
		if quick == 0 {
			t.Errorf("there was no quick look: %v", look)
		}
		t.Logf("%d Integrations: %d requests for a look at everything, then %d for all quick looks: %v", others+1, whole, requests, look[len(look)-requests:])
	}
}

// between two lists of all streams, what was asked for; the session's own probes left out.
func between(all []string, first, last int) (out [][]string) {
	n := 0
	for _, subject := range all {
		switch {
		case strings.HasPrefix(subject, "STREAM.LIST"):
			if n++; n > first && n <= last {
				out = append(out, []string{subject})
			}
		case n > first && n <= last && subject != "INFO" && !strings.Contains(subject, contract.StatusStream):
			out[len(out)-1] = append(out[len(out)-1], subject)
		}
	}
	return out
}
