package steps

import (
	"strings"
	"testing"

	"github.com/metip/metip/connectors/sdk"
)

func TestKey(t *testing.T) {
	long := strings.Repeat("é", 200)
	for _, c := range []struct {
		text, body, want string
	}{
		{"data.personId", `{"personId":"p-1"}`, "p-1"},
		{"data.personId", `{"personId":17}`, "17"},
		{"data.personId", `{"personId":123456789012345678901234}`, "123456789012345678901234"},
		{"data.a + '/' + string(data.b)", `{"a":"x","b":2}`, "x/2"},
		{"data.n * 2.0", `{"n":1.5}`, "3"},
		{"data.open", `{"open":true}`, "true"},
		{"id", `{}`, "m-1"},
		{"headers['tenant']", `{}`, "gb"},
		{"data.long", `{"long":"` + long + `"}`, long[:256]},
		// Nothing: such messages have no key.
		{"data.personId", `{}`, ""},
		{"data.personId", `{"personId":""}`, ""},
		{"data.personId", `{"personId":null}`, ""},
		{"data.personId", `{"personId":["a"]}`, ""},
		{"data.personId", `{"personId":{}}`, ""},
		{"data.personId", `not JSON`, ""},
		{"time", `{}`, ""},
	} {
		k, err := CompileKey(c.text)
		if err != nil {
			t.Fatal(c.text, err)
		}
		m := &sdk.Message{ID: "m-1", Format: sdk.FormatJSON, Data: []byte(c.body), Headers: map[string]string{"tenant": "gb"}}
		if got, ok := k.Of(m); got != c.want || ok != (c.want != "") {
			t.Errorf("%s of %.60s is %q (%v), want %q", c.text, c.body, got, ok, c.want)
		}
	}
	if _, err := CompileKey("data..x"); err == nil {
		t.Error("an expression with a mistake must be refused")
	}
}
