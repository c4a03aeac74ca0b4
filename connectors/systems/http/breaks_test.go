package http

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
)

// TestCallerDiesInItsRequest: a request that does not arrive completely is not stored, also where what has arrived is valid in itself; and the
// room that was kept for it is given back.
func TestCallerDiesInItsRequest(t *testing.T) {
	l := listen(t, contract.Config{}, `{"maxBodySize":"8Mi"}`)
	address := strings.TrimPrefix(l.url, "http://")
	for _, head := range []string{
		"Content-Length: 6000000\r\n\r\n{}",
		"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
	} {
		// Together they would take more than a pod has for bodies.
		for range 8 {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\n%s", head); err != nil {
				t.Fatal(err)
			}
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			// Whatever it is answered, the pod has seen the end.
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			answer, _ := io.ReadAll(conn)
			if strings.Contains(string(answer), " 202 ") {
				t.Errorf("half a request was accepted: %s", answer)
			}
			_ = conn.Close()
		}
	}
	if n := len(l.bus.Stored()); n != 0 {
		t.Fatalf("%d halves of requests are stored", n)
	}
	fakes.Eventually(t, 5*time.Second, "a whole request is accepted", func() bool { return l.post(t, map[string]string{"Idempotency-Key": "k"}, `{}`).status == 202 })
	if n := len(l.bus.Stored()); n != 1 {
		t.Errorf("%d messages", n)
	}
}
