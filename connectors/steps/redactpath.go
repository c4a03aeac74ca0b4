package steps

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a redaction.
const (
	maxPaths    = 64
	maxPath     = 256
	maxSegments = 16
	maxMask     = 64
)

type segmentKind uint8

const (
	// named is the member of that name, of an object.
	named segmentKind = iota
	// anyMember is every member of an object.
	anyMember
	// element is every element of an array.
	element
	// anywhere is the member of that name of any object, however deep.
	anywhere
)

type segment struct {
	kind segmentKind
	name string
}

// parsePath reads a path into a body:
//
//	path    = ["$"] step { step }
//	step    = "." name | "['" any text "']" | ".*" | "[*]" | ".." name
//	name    = one or more characters other than . [ ] * ' " $ and white space
//
// The first step may lack its dot where nothing stands before it. Within ['...'], \' and \\ stand for ' and \.
func parsePath(text string) ([]segment, error) {
	switch {
	case len(text) > maxPath:
		return nil, &Error{1, 1, fmt.Sprintf("the path is longer than %d bytes", maxPath)}
	case !utf8.ValidString(text):
		return nil, &Error{1, 1, "the path is not UTF-8"}
	}
	p := pathParser{text: text}
	if strings.HasPrefix(text, "$") {
		p.at = 1
	} else if text != "" && text[0] != '.' && text[0] != '[' {
		if err := p.afterDot(named); err != nil {
			return nil, err
		}
	}
	for p.at < len(text) {
		if err := p.step(); err != nil {
			return nil, err
		}
	}
	switch {
	case len(p.out) == 0:
		return nil, &Error{1, 1, "the path names no field: write one such as person.dateOfBirth"}
	case len(p.out) > maxSegments:
		return nil, &Error{1, 1, fmt.Sprintf("the path has more than %d steps", maxSegments)}
	}
	return p.out, nil
}

type pathParser struct {
	text string
	at   int
	out  []segment
}

func (p *pathParser) fail(message string) error { return errorAt(p.text, p.at, message) }

func (p *pathParser) step() error {
	rest := p.text[p.at:]
	switch {
	case strings.HasPrefix(rest, ".."):
		if slices.ContainsFunc(p.out, func(s segment) bool { return s.kind == anywhere }) {
			return p.fail("a path has one .. at most")
		}
		p.at += 2
		return p.afterDot(anywhere)
	case rest[0] == '.':
		p.at++
		return p.afterDot(named)
	case strings.HasPrefix(rest, "[*]"):
		p.at += 3
		p.out = append(p.out, segment{kind: element})
		return nil
	case strings.HasPrefix(rest, "['"):
		return p.quoted()
	case rest[0] == '[':
		return p.fail("after '[' stands *] for every element, or 'name']: single elements cannot be chosen")
	default:
		return p.fail("expected . or [")
	}
}

func (p *pathParser) afterDot(kind segmentKind) error {
	rest := p.text[p.at:]
	if strings.HasPrefix(rest, "*") {
		if kind == anywhere {
			return p.fail("after .. stands a name: every member of every object is the whole body")
		}
		p.at++
		p.out = append(p.out, segment{kind: anyMember})
		return nil
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return strings.ContainsRune(`.[]*'"$`, r) || unicode.IsSpace(r) })
	if end < 0 {
		end = len(rest)
	}
	if end == 0 {
		return p.fail("expected a name; one with other characters than letters and digits is written ['the name']")
	}
	p.out = append(p.out, segment{kind, rest[:end]})
	p.at += end
	return nil
}

func (p *pathParser) quoted() error {
	var name strings.Builder
	for i := p.at + 2; i < len(p.text); i++ {
		switch c := p.text[i]; {
		case c == '\\' && i+1 < len(p.text) && (p.text[i+1] == '\'' || p.text[i+1] == '\\'):
			i++
			name.WriteByte(p.text[i])
		case c == '\\':
			p.at = i
			return p.fail(`a backslash stands before ' or \ only`)
		case c == '\'':
			if !strings.HasPrefix(p.text[i:], "']") {
				p.at = i
				return p.fail("expected ']")
			}
			p.out = append(p.out, segment{named, name.String()})
			p.at = i + 2
			return nil
		default:
			name.WriteByte(c)
		}
	}
	return p.fail("[' is never closed")
}

// target is a node of the tree of paths.
type target struct {
	// here: a path ends, the value is redacted.
	here bool
	// tolerant of values that are no container: the way here leads over a wildcard.
	tolerant bool
	members  map[string]*target
	any      *target
	elements *target
	anywhere map[string]*target
	// onward looks for anywhere deeper down.
	onward *target
}

func (t *target) add(path []segment) {
	if len(path) == 0 {
		t.here = true
		return
	}
	tolerant := t.tolerant || path[0].kind == anyMember || path[0].kind == anywhere
	t.next(path[0], tolerant).add(path[1:])
}

func (t *target) next(s segment, tolerant bool) *target {
	get := func(m *map[string]*target) *target {
		if *m == nil {
			*m = map[string]*target{}
		}
		if (*m)[s.name] == nil {
			(*m)[s.name] = &target{tolerant: tolerant}
		}
		return (*m)[s.name]
	}
	one := func(t **target) *target {
		if *t == nil {
			*t = &target{tolerant: tolerant}
		}
		return *t
	}
	switch s.kind {
	case anyMember:
		return one(&t.any)
	case element:
		return one(&t.elements)
	case anywhere:
		return get(&t.anywhere)
	default:
		return get(&t.members)
	}
}

// finish a tree that has all its paths.
func (t *target) finish() {
	if len(t.anywhere) > 0 {
		t.onward = &target{tolerant: true, anywhere: t.anywhere}
		t.onward.onward = t.onward
	}
	for _, below := range []map[string]*target{t.members, t.anywhere} {
		for _, next := range below {
			next.finish()
		}
	}
	for _, next := range []*target{t.any, t.elements} {
		if next != nil {
			next.finish()
		}
	}
}

// fits tells whether what is at the target may be such a value: one in which a path that ends deeper can look on, or null.
func (t *target) fits(first byte) bool {
	switch {
	case t.tolerant || len(t.anywhere) > 0:
		return true
	case first == '{':
		return len(t.members) > 0 || t.any != nil
	case first == '[':
		return t.elements != nil
	default:
		return first == 'n'
	}
}
