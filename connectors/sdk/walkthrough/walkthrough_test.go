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
	"github.com/metip/metip/connectors/conformance/registrytest"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func TestMain(m *testing.M) {
	conformance.Add(System())
	conformance.Add(nodePod())
	conformance.Main()
	os.Exit(m.Run())
}

// registryServer is a registry, as the suite sees it.
type registryServer struct{ *registrytest.Server }

func startServer(t *testing.T) registryServer {
	t.Helper()
	s, err := registrytest.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return registryServer{s}
}

func (s registryServer) start(t *testing.T) {
	t.Helper()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
}

func (s registryServer) secrets() map[string]string {
	return map[string]string{contract.FileUsername: registrytest.User, contract.FilePassword: s.CurrentPassword()}
}

func (s registryServer) rotate(*testing.T) map[string]string {
	s.Rotate()
	return s.secrets()
}

func (s registryServer) config() contract.Config {
	return contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic, SecretName: "test-secret", Keys: []string{"username", "password"}}}
}

func TestSource(t *testing.T) { conformance.PullSources(t, sourceHarness) }

func sourceHarness(t *testing.T) *conformance.PullHarness {
	t.Helper()
	s := startServer(t)
	return &conformance.PullHarness{
		System: "registry", Options: fakes.JSON(t, options{s.Address()}), Config: s.config(), Secrets: s.secrets(),
		WrongCredentials: map[string]string{contract.FilePassword: "wrong-password"}, Endpoint: s.Address(),
		Put: func(_ *testing.T, from, to, size int) {
			for i := from; i < to; i++ {
				s.Offer(registrytest.Record{ID: "r" + strconv.Itoa(i), Body: func() string {
					return fmt.Sprintf(`{"id":%d,"padding":%q}`, i, strings.Repeat("x", size))
				}})
			}
		},
		Left:   func(*testing.T) int { return s.Left() },
		Window: 1, Ordered: true, Shared: true,
		Stop:   func(*testing.T) { s.Stop() },
		Start:  s.start,
		Rotate: s.rotate,
	}
}

func TestSink(t *testing.T) { conformance.Sinks(t, sinkHarness) }

func sinkHarness(t *testing.T) *conformance.SinkHarness {
	t.Helper()
	s := startServer(t)
	return &conformance.SinkHarness{
		System: "registry", Options: fakes.JSON(t, options{s.Address()}), Config: s.config(), Secrets: s.secrets(),
		WrongCredentials: map[string]string{contract.FilePassword: "wrong-password"}, CheckKnowsCredentials: true, Endpoint: s.Address(),
		Good: func(i, size int) *sdk.Delivery {
			return fakes.Delivery(strconv.Itoa(i), fmt.Sprintf(`{"id":%d,"padding":%q}`, i, strings.Repeat("x", size)))
		},
		Poison: func(i int) *sdk.Delivery {
			return fakes.Delivery(strconv.Itoa(i), fmt.Sprintf(`{"id":%d,"poison":true}`, i))
		},
		Stop:  func(*testing.T) { s.Stop() },
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
		Slow:    func(*testing.T) func() { return s.Freeze() },
		Rotate:  s.rotate,
	}
}

// arrived are the numbers of the records that were put.
func (s registryServer) arrived(t *testing.T) []int {
	t.Helper()
	stored := s.Stored()
	numbers := make([]int, len(stored))
	for i, body := range stored {
		if _, err := fmt.Sscanf(body, `{"id":%d`, &numbers[i]); err != nil {
			t.Fatalf("%.100q: %v", body, err)
		}
	}
	return numbers
}

// A record that is no JSON is refused, and the ones after it come.
func TestRecordThatCannotBeTaken(t *testing.T) {
	s := startServer(t)
	s.Offer(registrytest.Record{ID: "a", Body: func() string { return "this is no JSON" }}, registrytest.Record{ID: "b", Body: func() string { return `{"id":1}` }})
	secrets := &fakes.Secrets{}
	secrets.Set(s.secrets())
	config := s.config()
	src, err := NewSource(fakes.Runtime(t, &config, secrets, nil), fakes.JSON(t, options{s.Address()}))
	if err != nil {
		t.Fatal(err)
	}
	bus := &fakes.Publisher{}
	go func() { _ = src.Run(t.Context(), bus, &fakes.Reporter{}) }()
	fakes.Eventually(t, patience, "the good record comes, and the other is refused", func() bool {
		return len(bus.Stored()) == 1 && s.Refused() == 1 && s.Left() == 0
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
