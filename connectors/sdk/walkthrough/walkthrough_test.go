package walkthrough

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/metip/metip/connectors/conformance"
	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func TestMain(m *testing.M) {
	conformance.Add(System())
	conformance.Main()
	os.Exit(m.Run())
}

func (s *server) secrets() map[string]string {
	return map[string]string{contract.FileUsername: "bus", contract.FilePassword: s.password}
}

func (s *server) rotate(*testing.T) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.password = "second-password"
	return s.secrets()
}

func (s *server) config() contract.Config {
	return contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic, SecretName: "test-secret", Keys: []string{"username", "password"}}}
}

func TestSource(t *testing.T) {
	conformance.PullSources(t, func(t *testing.T) *conformance.PullHarness {
		t.Helper()
		s := startServer(t)
		return &conformance.PullHarness{
			System: "registry", Options: fakes.JSON(t, options{s.address}), Config: s.config(), Secrets: s.secrets(),
			WrongCredentials: map[string]string{contract.FilePassword: "wrong-password"}, Endpoint: s.address,
			Put: func(_ *testing.T, from, to, size int) {
				s.mu.Lock()
				defer s.mu.Unlock()
				for i := from; i < to; i++ {
					s.waiting = append(s.waiting, record{"r" + strconv.Itoa(i), func() string {
						return fmt.Sprintf(`{"id":%d,"padding":%q}`, i, strings.Repeat("x", size))
					}})
				}
				s.wake()
			},
			Left: func(*testing.T) int {
				s.mu.Lock()
				defer s.mu.Unlock()
				return len(s.waiting) + len(s.given)
			},
			Window: 1, Ordered: true, Shared: true,
			Stop:   func(*testing.T) { s.stop() },
			Start:  s.start,
			Rotate: s.rotate,
		}
	})
}

func TestSink(t *testing.T) {
	conformance.Sinks(t, func(t *testing.T) *conformance.SinkHarness {
		t.Helper()
		s := startServer(t)
		return &conformance.SinkHarness{
			System: "registry", Options: fakes.JSON(t, options{s.address}), Config: s.config(), Secrets: s.secrets(),
			WrongCredentials: map[string]string{contract.FilePassword: "wrong-password"}, CheckKnowsCredentials: true, Endpoint: s.address,
			Good: func(i, size int) *sdk.Delivery {
				return fakes.Delivery(strconv.Itoa(i), fmt.Sprintf(`{"id":%d,"padding":%q}`, i, strings.Repeat("x", size)))
			},
			Poison: func(i int) *sdk.Delivery {
				return fakes.Delivery(strconv.Itoa(i), fmt.Sprintf(`{"id":%d,"poison":true}`, i))
			},
			Stop:  func(*testing.T) { s.stop() },
			Start: s.start,
			Effects: func(t *testing.T) map[int]int {
				t.Helper()
				effects := map[int]int{}
				for _, n := range s.arrived(t) {
					effects[n]++
				}
				return effects
			},
			Arrived: s.arrived,
			Slow:    func(*testing.T) func() { return s.freeze() },
			Rotate:  s.rotate,
		}
	})
}

// arrived are the numbers of the records that were put.
func (s *server) arrived(t *testing.T) []int {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	numbers := make([]int, len(s.stored))
	for i, body := range s.stored {
		if _, err := fmt.Sscanf(body, `{"id":%d`, &numbers[i]); err != nil {
			t.Fatalf("%.100q: %v", body, err)
		}
	}
	return numbers
}

func (s *server) freeze() (resume func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	frozen := make(chan struct{})
	s.frozen = frozen
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.frozen = nil
		close(frozen)
	}
}

// A record that is no JSON is refused, and the ones after it come.
func TestRecordThatCannotBeTaken(t *testing.T) {
	s := startServer(t)
	s.mu.Lock()
	s.waiting = []record{{"a", func() string { return "this is no JSON" }}, {"b", func() string { return `{"id":1}` }}}
	s.mu.Unlock()
	secrets := &fakes.Secrets{}
	secrets.Set(s.secrets())
	config := s.config()
	src, err := NewSource(fakes.Runtime(t, &config, secrets, nil), fakes.JSON(t, options{s.address}))
	if err != nil {
		t.Fatal(err)
	}
	bus := &fakes.Publisher{}
	go func() { _ = src.Run(t.Context(), bus, &fakes.Reporter{}) }()
	fakes.Eventually(t, patience, "the good record comes, and the other is refused", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(bus.Stored()) == 1 && len(s.refused) == 1 && len(s.waiting)+len(s.given) == 0
	})
}

func TestOptionsThatCanNeverWork(t *testing.T) {
	for _, raw := range []string{`{}`, `{"address":"registry"}`, `{"address":"registry:7000","colour":"red"}`, `7`} {
		if _, err := NewSink(sdk.Runtime{}, json.RawMessage(raw)); err == nil {
			t.Errorf("%s is taken", raw)
		}
	}
}

func TestAnswersAreClassified(t *testing.T) {
	if err := classify("OK"); err != nil {
		t.Error(err)
	}
	if err := classify("BAD no such person"); !sdk.IsPermanent(err) || !strings.Contains(err.Error(), "no such person") {
		t.Error(err)
	}
	var unavailable *sdk.UnavailableError
	if err := classify("BUSY"); err == nil || sdk.IsPermanent(err) || errors.As(err, &unavailable) {
		t.Error(err)
	}
}

// What the walk-through shows is code of this package, word for word.
func TestTheWalkThroughShowsThisCode(t *testing.T) {
	page, err := os.ReadFile("../../../docs/write-a-connector.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
	}
	blocks := strings.Split(string(page), "```go\n")[1:]
	if len(blocks) < 5 {
		t.Fatalf("the page shows %d pieces of code", len(blocks))
	}
	for _, block := range blocks {
		block, _, _ = strings.Cut(block, "```")
		if !strings.Contains(code.String(), block) {
			t.Errorf("no code of this package:\n%s", block)
		}
	}
}
