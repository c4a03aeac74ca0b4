package apply

import (
	"encoding/json"
	"testing"
)

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		name       string
		have, want string
		covered    bool
	}{
		{"defaults do not matter", `{"a":1,"default":true}`, `{"a":1}`, true},
		{"a changed field", `{"a":2}`, `{"a":1}`, false},
		{"a missing field", `{}`, `{"a":1}`, false},
		{"an empty field that the server leaves out", `{}`, `{"a":{},"b":[],"c":""}`, true},
		{"keyed lists allow more", `{"l":[{"name":"x","v":1},{"name":"mine","v":1}]}`, `{"l":[{"name":"mine"}]}`, true},
		{"keyed lists find a change", `{"l":[{"name":"mine","v":2}]}`, `{"l":[{"name":"mine","v":1}]}`, false},
		{"keyed lists find a loss", `{"l":[{"name":"x"}]}`, `{"l":[{"name":"mine"}]}`, false},
		{"plain lists are compared whole", `{"l":["a","b"]}`, `{"l":["a"]}`, false},
		{"equal plain lists", `{"l":["a","b"]}`, `{"l":["a","b"]}`, true},
		{"lists of objects without a key", `{"l":[{"to":1}]}`, `{"l":[{"to":1},{"to":2}]}`, false},
		{"another kind of value", `{"a":"1"}`, `{"a":{"b":1}}`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var have, want any
			if err := json.Unmarshal([]byte(c.have), &have); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(c.want), &want); err != nil {
				t.Fatal(err)
			}
			if got := Covers(have, want); got != c.covered {
				t.Errorf("Covers(%s, %s) = %v", c.have, c.want, got)
			}
		})
	}
}
