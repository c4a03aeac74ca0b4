package walkthrough

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/custom"
)

// nodePod is a pod of a custom connector: the engine, and the container beside it, which dies with it. Its options are the registry's.
func nodePod() sdk.System {
	return sdk.System{
		Name: "registry-in-node",
		Source: func(rt sdk.Runtime, raw json.RawMessage) (sdk.Source, error) {
			o, c, err := startNode(rt, "Source", raw)
			if err != nil {
				return nil, err
			}
			s, err := custom.NewSource(rt, o)
			return &podSource{s, c}, err
		},
		Sink: func(rt sdk.Runtime, raw json.RawMessage) (sdk.Sink, error) {
			o, c, err := startNode(rt, "Sink", raw)
			if err != nil {
				return nil, err
			}
			s, err := custom.NewSink(rt, o)
			return &podSink{s, c}, err
		},
	}
}

type podSource struct {
	sdk.Source
	stop func()
}

func (s *podSource) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	defer s.stop()
	return s.Source.Run(ctx, bus, state)
}

type podSink struct {
	sdk.Sink
	stop func()
}

func (s *podSink) Close() error {
	defer s.stop()
	return s.Sink.Close()
}

// startNode runs the connector in Node.js with what a pod gives it: an address to listen at, the engine's, and the Secret as files.
func startNode(rt sdk.Runtime, role string, raw json.RawMessage) (json.RawMessage, func(), error) {
	var o options
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, nil, err
	}
	bus, err := freeAddress()
	if err != nil {
		return nil, nil, err
	}
	own, err := freeAddress()
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "metip-node-")
	if err != nil {
		return nil, nil, err
	}
	_, port, _ := net.SplitHostPort(own)
	node := exec.Command("node", "node/registry.mjs")
	node.Env = append(os.Environ(), "METIP_ROLE="+role, "METIP_PORT="+port, "METIP_BUS=http://"+bus, "METIP_SECRETS="+dir, "REGISTRY="+o.Address)
	node.Stderr = os.Stderr
	node.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := writeSecrets(rt, dir); err != nil {
		return nil, nil, err
	}
	if err := node.Start(); err != nil {
		return nil, nil, err
	}
	done := make(chan struct{})
	go func() {
		for {
			changed := rt.Secrets.Changed()
			if err := writeSecrets(rt, dir); err != nil {
				rt.Log.Error("the Secret's files", "error", err)
			}
			select {
			case <-done:
				return
			case <-changed:
			}
		}
	}()
	stop := sync.OnceFunc(func() {
		close(done)
		_ = node.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(patience, func() { _ = node.Process.Kill() })
		_ = node.Wait()
		late.Stop()
		_ = os.RemoveAll(dir)
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { // as the pod starts a container after the other
		conn, err := net.Dial("tcp", own)
		if err == nil {
			_ = conn.Close()
			break
		}
		if time.Now().After(deadline) {
			stop()
			return nil, nil, err
		}
	}
	ours, err := json.Marshal(map[string]any{"bus": bus, "container": own, "image": "registry"})
	return ours, stop, err
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// writeSecrets as the kubelet does: each file whole.
func writeSecrets(rt sdk.Runtime, dir string) error {
	for _, name := range []string{contract.FileUsername, contract.FilePassword} {
		value, err := rt.Secrets.Get(name)
		if err != nil {
			continue // it is not there yet
		}
		part := filepath.Join(dir, name+".part")
		if err := os.WriteFile(part, value, 0o600); err != nil {
			return err
		}
		if err := os.Rename(part, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func TestNodeSource(t *testing.T) {
	conformance.PullSources(t, func(t *testing.T) *conformance.PullHarness {
		t.Helper()
		h := sourceHarness(t)
		h.System = nodePod().Name
		return h
	})
}

func TestNodeSink(t *testing.T) {
	conformance.Sinks(t, func(t *testing.T) *conformance.SinkHarness {
		t.Helper()
		h := sinkHarness(t)
		h.System = nodePod().Name
		return h
	})
}

// What the page of custom connectors shows is the program that is tested here.
func TestThePageShowsTheConnectorInNode(t *testing.T) {
	page, err := os.ReadFile("../../../docs/connectors/custom.md")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("node/registry.mjs")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), fmt.Sprintf("```js\n%s```", program)) {
		t.Error("the page does not show node/registry.mjs as it is")
	}
}
