package engine

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/engine/enginetest"
	"github.com/metip/metip/connectors/sdk"
)

// BenchmarkOrder drains a backlog of 1,000 keys to a system that answers at once, with each order. What settles the lanes (half a pin's time) is
// not counted: the clock starts at the first message.
func BenchmarkOrder(b *testing.B) {
	for _, c := range []struct {
		name       string
		order      contract.Order
		lanes, max int
	}{
		{"none", contract.OrderNone, 0, 1}, {"none/batch", contract.OrderNone, 0, 200},
		{"perkey/4", contract.OrderPerKey, 4, 1}, {"perkey/4/batch", contract.OrderPerKey, 4, 200}, {"perkey/16", contract.OrderPerKey, 16, 1},
		{"perkey/1", contract.OrderPerKey, 1, 1}, {"strict", contract.OrderStrict, 1, 1},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := enginetest.Start(b, enginetest.Options{})
			s.Streams("ns", "in", 4<<30)
			js, body := s.Admin(), []byte(`{"id":"`+strings.Repeat("x", 1000)+`"}`)
			for i := range b.N {
				key := "k" + strconv.Itoa(i%1000)
				if _, err := js.PublishMsgAsync(keyedMessage(key, key+"."+strconv.Itoa(i/1000+1), body), jetstream.WithStallWait(10*time.Second)); err != nil {
					b.Fatal(err)
				}
			}
			<-js.PublishAsyncComplete()
			sink := &countingSink{want: int64(b.N), done: make(chan struct{}, 1), max: c.max}
			o := sinkPod(b, s, newFakeSink(), 30*time.Second, orderedRoute("r", c.order, c.lanes))
			o.system = sdk.System{Sink: func(sdk.Runtime, json.RawMessage) (sdk.Sink, error) { return sink, nil }}
			startPod(b, o)
			for sink.n.Load() == 0 {
				time.Sleep(100 * time.Microsecond)
			}
			first := sink.n.Load()
			b.ReportAllocs()
			b.ResetTimer()
			<-sink.done
			b.StopTimer()
			b.ReportMetric(float64(int64(b.N)-first)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}
