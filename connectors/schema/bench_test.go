package schema

import (
	"strings"
	"testing"

	"github.com/metip/metip/connectors/sdk"
)

// record is 1 KiB that arrest accepts.
var record = `{"arrestId":"A-12345","when":"2026-11-22T23:59:00Z","person":{"surname":"Doe","age":30},"offences":[{"code":"TH68001","count":2},{"code":"CJ88159","count":1}],"note":"` +
	strings.Repeat("x", 851) + `"}`

func BenchmarkCheck(b *testing.B) {
	s, err := Compile(arrest)
	if err != nil {
		b.Fatal(err)
	}
	document, err := sdk.DecodeJSON([]byte(record))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("decoded", func(b *testing.B) {
		b.SetBytes(int64(len(record)))
		b.ReportAllocs()
		for b.Loop() {
			if err := s.Check(b.Context(), document); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("body", func(b *testing.B) {
		b.SetBytes(int64(len(record)))
		b.ReportAllocs()
		for b.Loop() {
			if err := s.CheckBody(b.Context(), []byte(record)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(arrest); err != nil {
			b.Fatal(err)
		}
	}
}
