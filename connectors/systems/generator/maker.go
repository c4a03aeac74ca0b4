package generator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

const (
	// maxDepth of what is made, and maxItems of a list that the schema does not bound.
	maxDepth = 12
	maxItems = 3
	// tried documents before the maker is trusted.
	tried = 32
)

// maker makes documents that follow a JSON Schema. It knows what is needed for examples, and no more: newMaker tells a schema that asks for more.
type maker struct {
	root  map[string]any
	check *steps.Schema
}

func newMaker(text string) (*maker, error) {
	check, err := steps.CompileSchema(text)
	if err != nil {
		return nil, err
	}
	var root map[string]any
	if err := json.Unmarshal([]byte(text), &root); err != nil {
		return nil, errors.New("it is no object")
	}
	m := &maker{root: root, check: check}
	for n := range int64(tried) {
		body, err := m.document(n + 1)
		if err != nil {
			return nil, err
		}
		if err := check.Check(context.Background(), &sdk.Message{Data: body, Format: sdk.FormatJSON}); err != nil { //nolint:forbidigo // it is decided before anything runs
			return nil, fmt.Errorf("the generator cannot make what it asks for (%w): give `examples` there", err)
		}
	}
	return m, nil
}

// document number n, the same each time.
func (m *maker) document(n int64) ([]byte, error) {
	run := &making{maker: m, n: n, random: rand.New(rand.NewPCG(uint64(n), 0))} //nolint:gosec // examples, not secrets
	v, err := run.value(m.root, 0)
	if err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

// making of one document.
type making struct {
	*maker
	n      int64
	random *rand.Rand
}

// value that follows a schema.
func (m *making) value(schema any, depth int) (any, error) {
	s, ok := schema.(map[string]any)
	if !ok || len(s) == 0 {
		return "anything", nil // true, or an empty schema
	}
	if depth > maxDepth {
		return nil, errors.New("it is nested deeper than the generator makes: is it recursive?")
	}
	if v, ok := s["const"]; ok {
		return v, nil
	}
	for _, keyword := range []string{"enum", "examples"} {
		if list, ok := s[keyword].([]any); ok && len(list) > 0 {
			return list[m.random.IntN(len(list))], nil
		}
	}
	if target, ok := s["$ref"].(string); ok {
		found, err := m.resolve(target)
		if err != nil {
			return nil, err
		}
		return m.value(found, depth+1)
	}
	for _, keyword := range []string{"oneOf", "anyOf"} {
		if list, ok := s[keyword].([]any); ok && len(list) > 0 {
			return m.value(with(s, keyword, list[m.random.IntN(len(list))]), depth+1)
		}
	}
	if list, ok := s["allOf"].([]any); ok && len(list) > 0 {
		merged, err := m.all(s, list)
		if err != nil {
			return nil, err
		}
		return m.value(merged, depth+1)
	}
	return m.typed(s, depth)
}

// typed is a value of the type that the schema names, or shows by its keywords.
func (m *making) typed(s map[string]any, depth int) (any, error) {
	switch typeOf(s) {
	case "object":
		return m.object(s, depth)
	case "array":
		return m.array(s, depth)
	case "integer":
		return m.number(s, true)
	case "number":
		return m.number(s, false)
	case "boolean":
		return m.random.IntN(2) == 1, nil
	case "null":
		return nil, nil
	default:
		return m.text(s), nil
	}
}

// with is a schema in which one branch takes the place of a keyword.
func with(s map[string]any, keyword string, branch any) map[string]any {
	out := map[string]any{}
	for k, v := range s {
		if k != keyword {
			out[k] = v
		}
	}
	merge(out, branch)
	return out
}

// all branches of allOf as one schema.
func (m *making) all(s map[string]any, list []any) (map[string]any, error) {
	out := with(s, "allOf", nil)
	for _, branch := range list {
		b, ok := branch.(map[string]any)
		for depth := 0; ok && b["$ref"] != nil; depth++ {
			target, _ := b["$ref"].(string)
			found, err := m.resolve(target)
			if err != nil || depth > maxDepth {
				return nil, errors.Join(err, errors.New("allOf refers to nothing"))
			}
			b, ok = found.(map[string]any)
		}
		merge(out, b)
	}
	return out, nil
}

// merge a branch into a schema: properties and what is required add up.
func merge(out map[string]any, branch any) {
	b, _ := branch.(map[string]any)
	for k, v := range b {
		switch have := out[k].(type) {
		case map[string]any:
			sum := map[string]any{}
			merge(sum, have)
			merge(sum, v)
			out[k] = sum
		case []any:
			if more, ok := v.([]any); ok && k == "required" {
				out[k] = slices.Concat(have, more)
				continue
			}
			out[k] = v
		default:
			out[k] = v
		}
	}
}

// resolve a reference within the schema.
func (m *making) resolve(target string) (any, error) {
	path, ok := strings.CutPrefix(target, "#")
	if !ok || path != "" && path[0] != '/' {
		return nil, fmt.Errorf("the generator follows references within the schema only, not %q", target)
	}
	var at any = m.root
	for token := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		if token == "" {
			continue
		}
		object, ok := at.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("there is no %q", target)
		}
		at = object[strings.NewReplacer("~1", "/", "~0", "~").Replace(token)]
	}
	if at == nil {
		return nil, fmt.Errorf("there is no %q", target)
	}
	return at, nil
}

func typeOf(s map[string]any) string {
	switch t := s["type"].(type) {
	case string:
		return t
	case []any:
		for _, x := range t {
			if name, ok := x.(string); ok && name != "null" {
				return name
			}
		}
		return "null"
	}
	for _, guess := range [][2]string{
		{"properties", "object"}, {"required", "object"}, {"items", "array"}, {"minItems", "array"},
		{"minimum", "number"}, {"maximum", "number"}, {"exclusiveMinimum", "number"}, {"exclusiveMaximum", "number"}, {"multipleOf", "number"},
	} {
		if _, ok := s[guess[0]]; ok {
			return guess[1]
		}
	}
	return "string"
}

// object with all of its properties. Those that are not required are left out where the schema is recursive, or it would have no end.
func (m *making) object(s map[string]any, depth int) (any, error) {
	properties, _ := s["properties"].(map[string]any)
	required, _ := s["required"].([]any)
	names := make([]string, 0, len(properties))
	for name := range properties {
		names = append(names, name)
	}
	for _, r := range required {
		if name, ok := r.(string); ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	out := make(map[string]any, len(names))
	for _, name := range names {
		if depth > maxDepth/2 && !slices.Contains(required, any(name)) {
			continue
		}
		v, err := m.value(properties[name], depth+1)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out[name] = v
	}
	return out, nil
}

func (m *making) array(s map[string]any, depth int) (any, error) {
	low, high := int(number(s["minItems"], 0)), int(number(s["maxItems"], math.MaxInt32))
	if high > low+maxItems {
		high = low + maxItems
	}
	n := low
	if depth <= maxDepth/2 && high > low {
		n += m.random.IntN(high - low + 1)
	}
	unique, _ := s["uniqueItems"].(bool)
	out := make([]any, 0, n)
	for tries := 0; len(out) < n && tries < 10*(n+1); tries++ {
		v, err := m.value(s["items"], depth+1)
		if err != nil {
			return nil, err
		}
		if unique && slices.ContainsFunc(out, func(x any) bool { return fmt.Sprint(x) == fmt.Sprint(v) }) {
			continue
		}
		out = append(out, v)
	}
	return out, nil
}

func number(v any, otherwise float64) float64 {
	if f, ok := v.(float64); ok {
		return f
	}
	return otherwise
}

func (m *making) number(s map[string]any, whole bool) (any, error) {
	low, high := number(s["minimum"], math.Inf(-1)), number(s["maximum"], math.Inf(1))
	step := number(s["multipleOf"], 0)
	if step <= 0 {
		if step = 0.01; whole {
			step = 1
		}
	} else if whole {
		step = math.Max(1, math.Ceil(step)) // a whole multiple of a fraction is left to the check
	}
	if x := number(s["exclusiveMinimum"], math.Inf(-1)); x >= low {
		low = x + step
	}
	if x := number(s["exclusiveMaximum"], math.Inf(1)); x <= high {
		high = x - step
	}
	switch {
	case math.IsInf(low, -1) && math.IsInf(high, 1):
		low, high = 0, 1000*step
	case math.IsInf(low, -1):
		low = high - 1000*step
	case math.IsInf(high, 1):
		high = low + 1000*step
	}
	first, last := math.Ceil(low/step-1e-9), math.Floor(high/step+1e-9)
	if first > last {
		return nil, fmt.Errorf("there is no number between %v and %v", low, high)
	}
	v := (first + math.Floor(m.random.Float64()*(last-first+1))) * step
	if whole {
		return int64(v), nil
	}
	return math.Round(v*1e6) / 1e6, nil
}

// began is the time of message 0 in documents.
var began = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// text of a format, or of a length.
func (m *making) text(s map[string]any) string {
	at := began.Add(time.Duration(m.n) * time.Second)
	format, _ := s["format"].(string)
	switch format {
	case "date-time":
		return at.Format(time.RFC3339)
	case "date":
		return at.Format(time.DateOnly)
	case "time":
		return at.Format("15:04:05Z")
	case "duration":
		return fmt.Sprintf("PT%dS", m.random.IntN(1000))
	case "uuid":
		return fmt.Sprintf("%08x-0000-4000-8000-%012x", m.random.Uint32(), m.n)
	case "email":
		return fmt.Sprintf("person%d@example.org", m.n)
	case "hostname":
		return fmt.Sprintf("host%d.example.org", m.n)
	case "uri", "uri-reference", "iri":
		return fmt.Sprintf("https://example.org/%d", m.n)
	case "ipv4":
		return fmt.Sprintf("192.0.2.%d", m.random.IntN(255))
	case "ipv6":
		return fmt.Sprintf("2001:db8::%x", m.random.IntN(1<<16))
	}
	low := int(number(s["minLength"], 0))
	text := fmt.Sprintf("%s %d", words[m.random.IntN(len(words))], m.n)
	for len(text) < low {
		text += " " + words[m.random.IntN(len(words))]
	}
	if high := int(number(s["maxLength"], math.MaxInt32)); len(text) > max(high, low) {
		text = strings.TrimRight(text[:high], " ")
		for len(text) < low {
			text += "x"
		}
	}
	return text
}

// words of texts: the spelling alphabet.
var words = []string{"alfa", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima", "mike", "november", "oscar", "papa"}
