package steps

import (
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/itchyny/gojq"

	"github.com/metip/metip/connectors/sdk"
)

func TestEncodeAsGojqDoes(t *testing.T) {
	huge, _ := new(big.Int).SetString("123456789012345678901234567890", 10)
	for _, v := range []any{
		nil, true, false, 0, -17, math.MaxInt64, 1.5, math.Copysign(0, -1), 1e21, 1e20, 1e-7, 123e-9, 1e-6, math.Inf(1), math.Inf(-1), math.NaN(), huge, json.Number("12.10"), "", "a\"\\/\b\f\n\r\t\x01\x7f\xff<&>\u2028é😀\xed\xa0\x80",
		[]any{}, []any{1, []any{}}, map[string]any{}, map[string]any{"b": 1, "a": map[string]any{"z": nil, "y": 1}, "é": []any{map[string]any{"q": 1, "p": 2}}},
	} {
		want, err := gojq.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := encodeJSON(v, false); string(got) != string(want) || err != nil {
			t.Errorf("%#v: %s, %v; want %s", v, got, err, want)
		}
	}
}

func TestEncodeWhatCELGives(t *testing.T) {
	for _, c := range []struct {
		v    any
		want string
	}{
		{int64(-3), "-3"}, {uint64(math.MaxUint64), "18446744073709551615"}, {[]byte("ab"), `"YWI="`}, {90 * time.Second, `"90s"`}, {1500 * time.Millisecond, `"1.5s"`},
		{time.Date(2026, 11, 22, 11, 30, 0, 5e8, time.FixedZone("", 3600)), `"2026-11-22T10:30:00.5Z"`},
	} {
		if got, err := encodeJSON(c.v, true); string(got) != c.want || err != nil {
			t.Errorf("%v: %s, %v", c.v, got, err)
		}
	}
	for _, v := range []any{math.NaN(), math.Inf(1), struct{}{}} {
		if got, err := encodeJSON([]any{v}, true); err == nil {
			t.Errorf("%v: %s", v, got)
		}
	}
}

func TestEncodeIsBounded(t *testing.T) {
	// Each level holds the one below twice: 2^60 leaves, in the memory of sixty pairs.
	var v any = "x"
	for range 60 {
		v = []any{v, v}
	}
	if _, err := encodeJSON(v, false); !errors.Is(err, errResult) {
		t.Error(err)
	}
	for depth, want := range map[int]error{sdk.MaxDepth: nil, sdk.MaxDepth + 1: errDepth} {
		var v any
		for i := range depth {
			if i%2 == 0 {
				v = []any{v}
			} else {
				v = map[string]any{"a": v}
			}
		}
		if _, err := encodeJSON(v, false); !errors.Is(err, want) {
			t.Error(depth, err)
		}
	}
	// What is left of a failure does not show in the next result.
	if got, err := encodeJSON(map[string]any{"a": 1}, false); string(got) != `{"a":1}` || err != nil {
		t.Error(string(got), err)
	}
}

func FuzzEncode(f *testing.F) {
	r := maker{rand.New(rand.NewPCG(1, 1))} //nolint:gosec // a test's documents are no secret
	for range 50 {
		f.Add(r.document())
	}
	f.Add([]byte(record))
	f.Add([]byte(strings.Repeat(`{"a":`, 10) + `"\u0000\u007f"` + strings.Repeat("}", 10)))
	f.Fuzz(func(t *testing.T, doc []byte) {
		v, err := sdk.DecodeJSON(doc)
		if err != nil {
			return
		}
		want, _ := gojq.Marshal(v)
		if got, err := encodeJSON(v, true); string(got) != string(want) || err != nil {
			t.Fatalf("%s, %v; want %s", got, err, want)
		}
	})
}
