package steps

import (
	"strings"
	"testing"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// Whatever fails, and however: the message says "Smith" and 424242 everywhere, and no error does.
func TestErrorsHoldNothingOfTheMessage(t *testing.T) {
	const doc = `{"name":"Smith","born":424242,"list":["Smith",424242],"person":{"Smith":424242,"name":"Smith"},"text":"Smith \"Smith","bad":"{Smith","huge":4242421e400,"yes":true}`
	steps := []contract.Step{}
	for _, jq := range []string{
		".name.x", ".born.x", ".list.x", ".name[]", ".born + .name", ".person - .list", ".list | .[\"Smith\"]", ".name[.born]", ".name | tonumber", ".bad | fromjson", "{(.born): 1}", ".list | join(.born)",
		".name | ltrimstr(1) | .x", ".name / 0", ".born / 0", ".born % 0", ".list[.name]", ".list | .[-. [1]] = 1", "[.list] | @csv", ".name | strptime(\"%Y\")", ".name | fromdate", ".name | todate", ".name | splits(.name) | .[0]",
		".text | test(\"(\" + .)", ".list | flatten(-424242)", ".list | implode", ".person | from_entries", ".name | keys", ".born | has(.name)", ".list | has(.name)", ".name | sort", ".name * .person", ".person | .[1:2]", ".name | @base64d | .x",
		"getpath([\"name\", \"x\"])", ".born | ascii", ".list | transpose", ".list as [$a, {b: $c}] | $c", ".name as {x: $a} | $a", "setpath([.born]; 1)", "delpaths([[.name, .born]])", "path(.name | ascii_downcase)", "limit(.name; .list[])",
	} {
		steps = append(steps, contract.Step{JQ: jq})
	}
	for _, cel := range []string{
		"int(data.name)", "int(data.bad)", "timestamp(data.name)", "duration(data.text)", "data.name + data.born", "data.name.x", "data.list[data.born]", "data.list[data.name]", "data.born.startsWith('x')", "double(data.name)", "uint(data.name)", "bool(data.name)",
		"time.getHours(data.name)", "time.getHours('+99:' + data.name)", "data.name.matches(data.bad + '(')", "data.person[data.born]", "data.name.charAt(data.born)", "data.name.substring(data.born)", "'%d'.format([data.name])", "'%s %s'.format([data.name])", "data.huge + 1.0",
		"data.list.join(data.name)", "{data.born: 1}", "data.name ? 1 : 2", "data.list.map(x, int(x))", "data.name.replace('S', 'x', data.born).x", "-data.name", "data.list.exists(x, x > 1.0 && x < 'a')", "b'x' + data.name", "size(data.born)", "base64.encode(data.name)",
	} {
		steps = append(steps, contract.Step{CEL: cel}, contract.Step{CEL: "[" + cel + "]"}, contract.Step{Filter: cel}, contract.Step{SetHeaders: map[string]string{"a": "{" + cel + "}"}},
			contract.Step{LoadBalance: &contract.LoadBalance{Key: cel, Weights: map[string]int32{"a": 1}}})
	}
	for _, path := range []string{"name.x", "list[*].x", "person.name.x", "person[*]", "list.x"} {
		steps = append(steps, contract.Step{Redact: &contract.Redact{Paths: []string{path}}})
	}
	failed := 0
	for _, s := range steps {
		step, err := Compile(s)
		if err != nil {
			continue
		}
		m := &sdk.Message{Data: []byte(doc)}
		if _, err = step.Apply(t.Context(), m); err == nil {
			continue
		}
		failed++
		text := strings.ReplaceAll(err.Error(), "{"+"data", "") // the expression itself is the Route's
		if expression := s.SetHeaders["a"]; expression != "" {
			text = strings.ReplaceAll(err.Error(), expression, "")
		}
		if strings.Contains(text, "Smith") || strings.Contains(text, "424242") {
			t.Errorf("%s%s%s: %v", s.JQ, s.CEL, s.Filter, err)
		}
	}
	if failed < 120 {
		t.Errorf("only %d steps failed", failed)
	}
	t.Log(failed, "errors")
	if _, _, err := must(t, `error("no court for " + .name)`).Apply(t.Context(), &sdk.Message{Data: []byte(doc)}); err == nil || !strings.Contains(err.Error(), "no court for Smith") {
		t.Error("what the program says itself:", err)
	}
	if _, _, err := must(t, `error(.name * 100)`).Apply(t.Context(), &sdk.Message{Data: []byte(doc)}); err == nil || len(err.Error()) > 2*maxErrorText {
		t.Error(err)
	}
}
