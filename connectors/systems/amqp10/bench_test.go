package amqp10

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	amqp "github.com/Azure/go-amqp"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/sdk"
)

// The connector beside the bare client library doing the same work: messages of 1 KiB, durable, on one connection. The bus costs nothing here.

var payload = []byte(`{"text":"` + strings.Repeat("x", 1000) + `"}`)

func benchMessage(i int) *amqp.Message {
	return &amqp.Message{Header: &amqp.MessageHeader{Durable: true, Priority: 4}, Properties: &amqp.MessageProperties{MessageID: fmt.Sprint(i)}, Data: [][]byte{payload}}
}

// send n messages unsettled, and wait for the outcomes of each batch.
func (p *place) send(b *testing.B, queue string, n, batch int) {
	b.Helper()
	sender, err := p.other.NewSender(b.Context(), "/amq/queue/"+queue, &amqp.SenderOptions{SettlementMode: &unsettled})
	if err != nil {
		b.Fatal(err)
	}
	receipts := make([]amqp.SendReceipt, 0, batch)
	for i := range n {
		r, err := sender.SendWithReceipt(b.Context(), benchMessage(i), nil)
		if err != nil {
			b.Fatal(err)
		}
		if receipts = append(receipts, r); len(receipts) < batch && i < n-1 {
			continue
		}
		for k := range receipts {
			if _, err := receipts[k].Wait(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		receipts = receipts[:0]
	}
}

// counting is a bus that takes everything.
type counting struct {
	fakes.Publisher
	want int64
	got  atomic.Int64
	done chan struct{}
}

func (c *counting) Publish(_ context.Context, messages ...*sdk.Message) error {
	n := int64(len(messages))
	if got := c.got.Add(n); got >= c.want && got-n < c.want {
		close(c.done)
	}
	return nil
}

func BenchmarkSource(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		p := newPlace(b, "in")
		p.send(b, "in", b.N, maxSend)
		session := p.AMQP10(b, p.name)
		b.ResetTimer()
		receiver, err := session.NewReceiver(b.Context(), "/amq/queue/in", &amqp.ReceiverOptions{Credit: -1, RequestedSenderSettleMode: &unsettled})
		if err != nil {
			b.Fatal(err)
		}
		// All at once: RabbitMQ 3 forgets credit at times that is given bit by bit, and the library does not notice.
		if err := receiver.IssueCredit(uint32(b.N)); err != nil {
			b.Fatal(err)
		}
		for range b.N {
			m, err := receiver.Receive(b.Context(), nil)
			if err != nil {
				b.Fatal(err)
			}
			if err := receiver.AcceptMessage(b.Context(), m); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	})
	b.Run("connector", func(b *testing.B) {
		p := newPlace(b, "in")
		p.send(b, "in", b.N, maxSend)
		bus := &counting{want: int64(b.N), done: make(chan struct{})}
		b.ResetTimer()
		_, stop := p.read(b, bus, map[string]any{"address": "/amq/queue/in"})
		<-bus.done
		stop()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	})
}

func BenchmarkSink(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		p := newPlace(b, "out")
		b.ResetTimer()
		p.send(b, "out", b.N, maxSend)
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	})
	b.Run("connector", func(b *testing.B) {
		p := newPlace(b, "out")
		write := p.sink(b, map[string]any{"address": "/amq/queue/out"})
		b.ResetTimer()
		deliveries := make([]*sdk.Delivery, 0, maxSend)
		for i := range b.N {
			if deliveries = append(deliveries, fakes.Delivery(fmt.Sprint(i), string(payload))); len(deliveries) == maxSend || i == b.N-1 {
				for _, err := range write(deliveries...) {
					if err != nil {
						b.Fatal(err)
					}
				}
				deliveries = deliveries[:0]
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	})
}
