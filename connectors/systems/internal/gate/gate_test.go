package gate

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/fakes"
)

func TestGate(t *testing.T) {
	ours, theirs := net.Pipe()
	defer func() { _ = theirs.Close() }()
	g := New(ours, 1000)
	var read atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buffer := make([]byte, 100)
		for {
			n, err := g.Read(buffer)
			read.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	if err := g.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() { _, err := theirs.Write(make([]byte, 5000)); wrote <- err }()
	upTo := func(n int64) {
		t.Helper()
		fakes.Eventually(t, 20*time.Second, "so much is read", func() bool { return read.Load() == n })
		<-g.Shut
	}
	upTo(1100) // the limit, and the read that passes it
	g.Settled(200)
	upTo(1300)
	g.Clear()
	upTo(2400)
	g.TurnOff()
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	fakes.Eventually(t, 20*time.Second, "all is read", func() bool { return read.Load() == 5000 })
	g.TurnOn()
	go func() { _, _ = theirs.Write(make([]byte, 5000)) }()
	fakes.Eventually(t, 20*time.Second, "it is shut", func() bool { return len(g.Shut) > 0 })
	if err := g.Close(); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	<-ended
}
