package rabbitmq

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/sdk"
)

// The connector beside the bare client library doing the same work: messages of 1 KiB, durable, on one connection. The bus costs nothing here.

var payload = []byte(`{"text":"` + strings.Repeat("x", 1000) + `"}`)

// fill a queue with n messages, confirmed.
func (p *place) fill(b *testing.B, queue string, n int) {
	b.Helper()
	if err := p.channel.Confirm(false); err != nil {
		b.Fatal(err)
	}
	var last *amqp.DeferredConfirmation
	for i := range n {
		confirm, err := p.channel.PublishWithDeferredConfirm("", queue, true, false, amqp.Publishing{MessageId: fmt.Sprint(i), DeliveryMode: amqp.Persistent, Body: payload})
		if err != nil {
			b.Fatal(err)
		}
		if last = confirm; i%500 == 499 {
			last.Wait()
		}
	}
	last.Wait()
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
		p.fill(b, "in", b.N)
		channel := p.Channel(b, p.name)
		b.ResetTimer()
		if err := channel.Qos(defaultPrefetch, 0, false); err != nil {
			b.Fatal(err)
		}
		deliveries, err := channel.Consume("in", "", false, false, false, false, nil)
		if err != nil {
			b.Fatal(err)
		}
		for i := range b.N {
			if d := <-deliveries; i%64 == 63 || i == b.N-1 {
				if err := d.Ack(true); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	})
	b.Run("connector", func(b *testing.B) {
		p := newPlace(b, "in")
		p.fill(b, "in", b.N)
		bus := &counting{want: int64(b.N), done: make(chan struct{})}
		b.ResetTimer()
		_, stop := p.read(b, bus, map[string]any{"queue": "in"})
		<-bus.done
		stop()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	})
}

func BenchmarkSink(b *testing.B) {
	const batch = 256
	b.Run("bare", func(b *testing.B) {
		p := newPlace(b, "out")
		if err := p.channel.Confirm(false); err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		confirms := make([]*amqp.DeferredConfirmation, 0, batch)
		for i := range b.N {
			confirm, err := p.channel.PublishWithDeferredConfirm("", "out", true, false, amqp.Publishing{MessageId: fmt.Sprint(i), DeliveryMode: amqp.Persistent, Body: payload})
			if err != nil {
				b.Fatal(err)
			}
			if confirms = append(confirms, confirm); len(confirms) == batch || i == b.N-1 {
				for _, c := range confirms {
					if !c.Wait() {
						b.Fatal("refused")
					}
				}
				confirms = confirms[:0]
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	})
	b.Run("connector", func(b *testing.B) {
		p := newPlace(b, "out")
		write := p.sink(b, map[string]any{"routingKey": "out"})
		b.ResetTimer()
		deliveries := make([]*sdk.Delivery, 0, batch)
		for i := range b.N {
			if deliveries = append(deliveries, fakes.Delivery(fmt.Sprint(i), string(payload))); len(deliveries) == batch || i == b.N-1 {
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
