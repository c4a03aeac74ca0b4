package record

import (
	"encoding/json"
	"testing"

	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

func TestBodyCarriesItsNumber(t *testing.T) {
	other := Body(42)
	for _, n := range []int{0, 7, 12_345_678_901} {
		body := Body(n)
		if len(body) != Size || !json.Valid(body) {
			t.Errorf("body %d is %d bytes, valid JSON: %v", n, len(body), json.Valid(body))
		}
		if got := Number(body); got != n {
			t.Errorf("body %d reads as %d", n, got)
		}
		if SetNumber(other, n); string(other) != string(body) {
			t.Errorf("a body that becomes %d is %.30s", n, other)
		}
	}
	for _, body := range []string{"", `{"n":1`, `{"other":100000000000}`, `{"n":1abcdefghijk`} {
		if got := Number([]byte(body)); got != -1 {
			t.Errorf("%q reads as %d", body, got)
		}
	}
}

func TestFilterLetsEveryBodyPassAndNoOther(t *testing.T) {
	f, err := steps.CompileFilter(Filter)
	if err != nil {
		t.Fatal(err)
	}
	for body, want := range map[string]bool{string(Body(0)): true, string(Body(99_999_999_999)): true, `{"n": 5}`: false} {
		if got, err := f.Match(&sdk.Message{Data: []byte(body), Format: sdk.FormatJSON}); got != want || err != nil {
			t.Errorf("%.30s: %v, %v", body, got, err)
		}
	}
}
