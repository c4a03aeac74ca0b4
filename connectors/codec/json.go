package codec

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/metip/metip/connectors/internal/rawjson"
	"github.com/metip/metip/connectors/sdk"
)

// document is a JSON document whose values lie in the body: nodes say where. Node 0 is none.
type document struct {
	in    []byte
	nodes []node
}

// ref is the number of a node.
type ref uint32

// node is one value. Members of objects have their name, with its quotes; all others have none.
type node struct {
	start, end         uint32
	nameStart, nameEnd uint32
	// first of the items or members, and the next one of what this belongs to.
	first, next ref
	kind        kind
	// plain: a string without escapes. plainName is of the name.
	plain, plainName bool
}

type kind uint8

const (
	isObject kind = iota + 1
	isArray
	isString
	isNumber
	isWord
	isNull
)

const root ref = 1

// parseJSON makes a document of a body. It keeps the body.
func parseJSON(in []byte) (*document, error) {
	if len(in) > 1<<30 {
		return nil, errors.New("the body is too long")
	}
	if err := sdk.CheckJSON(in); err != nil {
		return nil, fmt.Errorf("the body is not JSON: %w", err)
	}
	d := &document{in: in, nodes: make([]node, 1, 16+len(in)/16)}
	d.value(d.space(0))
	return d, d.unique()
}

// unique tells whether no object has a member twice: of two, one reader takes the first and another the last.
func (d *document) unique() error {
	for i := range d.nodes {
		n := &d.nodes[i]
		if n.kind != isObject || n.first == 0 {
			continue
		}
		var seen map[string]struct{}
		count := 0
		for c := n.first; c != 0; c = d.nodes[c].next {
			if count++; count == 16 {
				seen = map[string]struct{}{}
				for b := n.first; b != c; b = d.nodes[b].next {
					seen[string(d.name(b))] = struct{}{}
				}
			}
			twice := false
			if seen != nil {
				name := string(d.name(c))
				_, twice = seen[name]
				seen[name] = struct{}{}
			} else {
				for b := n.first; b != c && !twice; b = d.nodes[b].next {
					twice = d.sameName(b, c)
				}
			}
			if twice {
				return fmt.Errorf("the member %.64q is given twice", d.name(c))
			}
		}
	}
	return nil
}

func (d *document) sameName(a, b ref) bool {
	x, y := &d.nodes[a], &d.nodes[b]
	if x.plainName && y.plainName {
		return string(d.in[x.nameStart:x.nameEnd]) == string(d.in[y.nameStart:y.nameEnd])
	}
	return string(d.name(a)) == string(d.name(b))
}

func (d *document) space(at int) int {
	for at < len(d.in) {
		switch d.in[at] {
		case ' ', '\t', '\n', '\r', ',', ':':
			at++
		default:
			return at
		}
	}
	return at
}

// value at an offset, and the offset after it. The document is known to be valid.
func (d *document) value(at int) (ref, int) {
	n := ref(len(d.nodes))
	d.nodes = append(d.nodes, node{start: uint32(at)})
	k, end := isWord, at
	switch d.in[at] {
	case '{', '[':
		k = isArray
		if d.in[at] == '{' {
			k = isObject
		}
		end = d.children(n, k, at+1)
	case '"':
		k = isString
		end, d.nodes[n].plain = rawjson.String(d.in, at)
	case 't', 'n':
		if end = at + 4; d.in[at] == 'n' {
			k = isNull
		}
	case 'f':
		end = at + 5
	default:
		k = isNumber
		for end < len(d.in) && isNumeric(d.in[end]) {
			end++
		}
	}
	d.nodes[n].kind, d.nodes[n].end = k, uint32(end)
	return n, end
}

func (d *document) children(parent ref, k kind, at int) int {
	var last ref
	for {
		at = d.space(at)
		if c := d.in[at]; c == '}' || c == ']' {
			return at + 1
		}
		var nameStart, nameEnd uint32
		plain := false
		if k == isObject {
			nameStart = uint32(at)
			at, plain = rawjson.String(d.in, at)
			nameEnd = uint32(at)
			at = d.space(at)
		}
		var child ref
		child, at = d.value(at)
		c := &d.nodes[child]
		c.nameStart, c.nameEnd, c.plainName = nameStart, nameEnd, plain
		if last == 0 {
			d.nodes[parent].first = child
		} else {
			d.nodes[last].next = child
		}
		last = child
	}
}

func isNumeric(c byte) bool {
	return c >= '0' && c <= '9' || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E'
}

// raw bytes of a value.
func (d *document) raw(n ref) []byte { return d.in[d.nodes[n].start:d.nodes[n].end] }

// text of a string, number or word; empty for null. It may be part of the body.
func (d *document) text(n ref) []byte {
	switch v := &d.nodes[n]; v.kind {
	case isString:
		return unquote(d.in[v.start:v.end], v.plain)
	case isNull:
		return nil
	default:
		return d.raw(n)
	}
}

// name of a member. It may be part of the body.
func (d *document) name(n ref) []byte {
	v := &d.nodes[n]
	return unquote(d.in[v.nameStart:v.nameEnd], v.plainName)
}

func unquote(quoted []byte, plain bool) []byte {
	if plain {
		return quoted[1 : len(quoted)-1]
	}
	var s string
	_ = json.Unmarshal(quoted, &s) // it is known to be a string
	return []byte(s)
}

// isScalar tells whether a value has no parts.
func (d *document) isScalar(n ref) bool { return d.nodes[n].kind > isArray }

// appendString appends a text as a string of JSON. The text is valid UTF-8.
func appendString[T string | []byte](out []byte, text T) []byte {
	const hex = "0123456789abcdef"
	out = append(out, '"')
	from := 0
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		out = append(out, text[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			out = append(out, '\\', c)
		case '\n':
			out = append(out, '\\', 'n')
		case '\r':
			out = append(out, '\\', 'r')
		case '\t':
			out = append(out, '\\', 't')
		default:
			out = append(out, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(append(out, text[from:]...), '"')
}

// TextToJSON makes a JSON string of a text.
func TextToJSON(text []byte) ([]byte, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("the body is not Text: it is not valid UTF-8")
	}
	out := appendString(make([]byte, 0, len(text)+len(text)/16+2), text)
	if len(out) > maxOutput {
		return nil, errTooLong
	}
	return out, nil
}

// JSONToText makes a text of a JSON string, and of a number or boolean what is written.
func JSONToText(body []byte) ([]byte, error) {
	d, err := parseJSON(body)
	if err != nil {
		return nil, err
	}
	if !d.isScalar(root) || d.nodes[root].kind == isNull {
		return nil, errors.New("only a string, number or boolean becomes Text: pick one by a transform before")
	}
	return d.text(root), nil
}
