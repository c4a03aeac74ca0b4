package engine

import (
	"testing"

	"github.com/metip/metip/connectors/contract"
)

// BenchmarkCall is one call after the other, and many at a time, from the caller's pod over the broker to a service that answers at once.
func BenchmarkCall(b *testing.B) {
	s := startBroker(b)
	body := string(make([]byte, 1024))
	startService(b, s, "svc-1", newFakeService(always(text("%s", body))), func(c *contract.Service) { c.MaxConcurrent = 1024 })
	_, k := startCaller(b, s, serviceCall(nil))
	call := func() {
		if a := answer(b, k, ask("POST", "/persons/17", body)); a.Status != 200 {
			b.Errorf("%d: %s", a.Status, a.Data)
		}
	}
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			call()
		}
	})
	b.Run("many", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(16)
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				call()
			}
		})
	})
}
