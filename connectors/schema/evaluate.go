package schema

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// What judging one document may cost. A step is about 50 ns, so that this is about a second. It is counted and not timed, for how busy a
// machine is must not decide whether a document is right.
const (
	maxSteps = 20_000_000
	// lookEvery so many steps at whether anybody still waits for the answer.
	lookEvery = 4096
	// maxNesting of nodes, and of the values below them, within each other.
	maxNesting   = 4000
	bytesPerStep = 64
	// instructionsPerStep of a regular expression on one byte.
	instructionsPerStep = 4
	// maxRegexText is how long a string of format regex may be: it has to be compiled.
	maxRegexText = 1024
)

// evaluation judges one document.
type evaluation struct {
	ctx context.Context
	// budget of steps that are left; check counts down to the next look at ctx.
	budget, check int
	stopped       error

	// path to the value that is judged; violation is the first rule broken, while quiet is 0.
	path      []token
	tokens    [16]token
	quiet     int
	nesting   int
	violation Violation
}

// token of a path: a member's name or an item's number.
type token struct {
	name  string
	index int
}

// step counts the cost of what is done next. It is false when there is no more to spend.
func (e *evaluation) step(cost int) bool {
	if e.stopped != nil {
		return false
	}
	e.budget -= cost
	if e.budget < 0 {
		e.stopped = ErrLimit
		return false
	}
	if e.check -= cost; e.check > 0 {
		return true
	}
	e.check = lookEvery
	e.stopped = e.ctx.Err()
	return e.stopped == nil
}

// fail notes the first rule that is broken; rule is what the schema says. It is always false.
func (e *evaluation) fail(rule string, of ...any) bool {
	if e.quiet == 0 && e.stopped == nil && e.violation.Rule == "" {
		text := fmt.Sprintf(rule, of...)
		if len(text) > 200 {
			text = strings.ToValidUTF8(text[:200], "") + "..."
		}
		e.violation = Violation{Path: e.pointer(), Rule: text}
	}
	return false
}

// pointer to the value that is judged. Names that are very long are cut: they may be anything.
func (e *evaluation) pointer() string {
	var out strings.Builder
	for _, t := range e.path {
		if out.Len() > 300 {
			return out.String() + "/..."
		}
		out.WriteByte('/')
		if t.index >= 0 {
			out.WriteString(strconv.Itoa(t.index))
			continue
		}
		name := t.name
		if len(name) > 64 {
			name = strings.ToValidUTF8(name[:64], "") + "..."
		}
		out.WriteString(strings.Map(printable, escape(name)))
	}
	return out.String()
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f || r == utf8.RuneError {
		return '?'
	}
	return r
}

func escape(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}

// value judges v by n. seen collects what has been evaluated of v, for unevaluatedProperties and unevaluatedItems of a node around n; it is
// nil where there is none.
func (e *evaluation) value(n *node, v any, seen *evaluated) bool {
	if !e.step(1) {
		return false
	}
	if e.nesting++; e.nesting > maxNesting {
		e.stopped = ErrLimit
		return false
	}
	defer func() { e.nesting-- }()
	if n.never {
		return e.fail("false: nothing is allowed here")
	}
	if (n.types != 0 || n.integer) && !n.takes(v) {
		return e.fail("type: %s", n.typeNames())
	}
	if n.constant != nil && !e.has(n.constant, v) {
		return e.fail("const")
	}
	if n.enum != nil && !e.has(n.enum, v) {
		return e.fail("enum")
	}
	own := seen
	if n.judgesUnevaluated {
		own = &evaluated{} // what nodes around this one have judged is none of its business
	}
	for _, r := range n.refs {
		if !e.value(r, v, own) {
			return false
		}
	}
	var ok bool
	switch v := v.(type) {
	case map[string]any:
		ok = n.object == nil || e.object(n.object, v, own)
	case []any:
		ok = n.array == nil || e.array(n.array, v, own)
	case string:
		ok = e.text(n, v)
	case nil, bool:
		ok = true
	default:
		ok = e.number(n, v)
	}
	if !ok || !e.combined(n, v, own) {
		return false
	}
	if n.judgesUnevaluated {
		if !e.unevaluated(n, v, own) {
			return false
		}
		if seen != nil {
			seen.add(own)
		}
	}
	return true
}

// takes tells whether the type of a value is among those that the node asks for.
func (n *node) takes(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return n.types&kindObject != 0
	case []any:
		return n.types&kindArray != 0
	case string:
		return n.types&kindString != 0
	case bool:
		return n.types&kindBoolean != 0
	case nil:
		return n.types&kindNull != 0
	case int:
		return n.types&kindNumber != 0 || n.integer
	default:
		if n.types&kindNumber != 0 {
			return true
		}
		d, ok := decimalOf(v)
		return ok && n.integer && d.isInteger()
	}
}

func (n *node) typeNames() string {
	var out []string
	for _, name := range []string{"null", "boolean", "number", "string", "array", "object"} {
		if n.types&kindNamed[name] != 0 {
			out = append(out, name)
		}
	}
	if n.integer {
		out = append(out, "integer")
	}
	return strings.Join(out, " or ")
}

func (e *evaluation) text(n *node, s string) bool {
	if n.minLength >= 0 || n.maxLength >= 0 {
		if !e.step(len(s) / bytesPerStep) {
			return false
		}
		length := utf8.RuneCountInString(s)
		if n.minLength >= 0 && length < n.minLength {
			return e.fail("minLength: %d", n.minLength)
		}
		if n.maxLength >= 0 && length > n.maxLength {
			return e.fail("maxLength: %d", n.maxLength)
		}
	}
	if n.pattern != nil {
		if matches, ok := e.match(n.pattern, s); !ok {
			return false
		} else if !matches {
			return e.fail("pattern: %q", n.pattern.String())
		}
	}
	if n.format == nil {
		return true
	}
	if n.format.Name == "regex" && len(s) > maxRegexText {
		return e.fail("format: regex of at most %d bytes", maxRegexText)
	}
	if !e.step(len(s) / 4) {
		return false
	}
	if n.format.Validate(s) != nil {
		return e.fail("format: %s", n.format.Name)
	}
	return true
}

func (e *evaluation) match(p *pattern, s string) (matches, ok bool) {
	if !e.step(1 + len(s)*p.instructions/instructionsPerStep) {
		return false, false
	}
	return p.MatchString(s), true
}

func (e *evaluation) number(n *node, v any) bool {
	if number, ok := v.(json.Number); ok && !e.step(len(number)/bytesPerStep) {
		return false
	}
	if b := n.minimum; b != nil {
		if c, ok := b.compare(v); ok && (c < 0 || c == 0 && b.exclusive) {
			return e.fail("%s: %s", b.keyword("minimum", "exclusiveMinimum"), b.text)
		}
	}
	if b := n.maximum; b != nil {
		if c, ok := b.compare(v); ok && (c > 0 || c == 0 && b.exclusive) {
			return e.fail("%s: %s", b.keyword("maximum", "exclusiveMaximum"), b.text)
		}
	}
	if n.multipleOf != nil && !n.multipleOf.divides(v) {
		return e.fail("multipleOf: %s", n.multipleOf.text)
	}
	return true
}

func (b *bound) keyword(inclusive, exclusive string) string {
	if b.exclusive {
		return exclusive
	}
	return inclusive
}

// combined judges by what the node says of other nodes for the same value.
func (e *evaluation) combined(n *node, v any, seen *evaluated) bool {
	for _, x := range n.allOf {
		if !e.value(x, v, seen) {
			return false
		}
	}
	if n.not != nil && e.quietly(n.not, v, nil) {
		return e.fail("not")
	}
	if e.stopped != nil {
		return false
	}
	if len(n.anyOf) > 0 && e.count(n.anyOf, v, seen, seen == nil, 0) == 0 {
		return e.fail("anyOf: none of %d fits", len(n.anyOf))
	}
	if len(n.oneOf) > 0 {
		if fit := e.count(n.oneOf, v, seen, false, 2); fit != 1 {
			if fit == 0 {
				return e.fail("oneOf: none of %d fits", len(n.oneOf))
			}
			return e.fail("oneOf: more than one of %d fits", len(n.oneOf))
		}
	}
	if n.condition == nil || e.stopped != nil {
		return e.stopped == nil
	}
	branch := n.alternative
	if e.quietly(n.condition, v, seen) {
		branch = n.consequent
	}
	return e.stopped == nil && (branch == nil || e.value(branch, v, seen))
}

// quietly judges by a node whose No is no violation. What it has seen of the value counts only after a Yes.
func (e *evaluation) quietly(n *node, v any, seen *evaluated) bool {
	e.quiet++
	defer func() { e.quiet-- }()
	if seen == nil {
		return e.value(n, v, nil)
	}
	mine := &evaluated{}
	if !e.value(n, v, mine) {
		return false
	}
	seen.add(mine)
	return true
}

// count the nodes that fit, up to the first, or to limit if it is above 0.
func (e *evaluation) count(nodes []*node, v any, seen *evaluated, first bool, limit int) int {
	fit := 0
	for _, n := range nodes {
		if e.quietly(n, v, seen) {
			if fit++; first || fit == limit {
				break
			}
		}
		if e.stopped != nil {
			break
		}
	}
	return fit
}
