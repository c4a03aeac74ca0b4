package steps

import (
	"math"

	"github.com/metip/metip/connectors/internal/rawjson"
	"github.com/metip/metip/connectors/sdk"
)

// maxFields that are read from a body's bytes; an expression that names more has the body decoded.
const maxFields = 24

// fields are the ones of a JSON body that an expression can look at. They are read in one pass over the body, which also finds out whether
// it is JSON from its first to its last byte; of several members of one name the last one counts, as it does for sdk.DecodeJSON.
type fields struct {
	root  field
	slots int
}

// field is a node of a tree whose root is the body.
type field struct {
	name string
	// slot of the field; those of the fields below it are between it and end.
	slot, end int
	// whole: the value is wanted, not only whether it is there, or what is below it.
	whole bool
	below []field
}

// span is where a value is in the body; the zero span means that there is none. plain is of strings: what is between the quotes means itself.
type span struct {
	from, to int32
	plain    bool
}

// add a path of members.
func (f *fields) add(path []string, whole bool) {
	at := &f.root
	for _, name := range path {
		next := at.child(name)
		if next == nil {
			at.below = append(at.below, field{name: name})
			next = &at.below[len(at.below)-1]
		}
		at = next
	}
	at.whole = at.whole || whole
	f.slots = f.root.number(0)
}

func (f *field) child(name string) *field {
	for i := range f.below {
		if f.below[i].name == name {
			return &f.below[i]
		}
	}
	return nil
}

func (f *field) number(slot int) int {
	f.slot = slot
	slot++
	for i := range f.below {
		slot = f.below[i].number(slot)
	}
	f.end = slot
	return slot
}

// slotOf a path that was added.
func (f *fields) slotOf(path []string) int {
	at := &f.root
	for _, name := range path {
		at = at.child(name)
	}
	return at.slot
}

// read where the fields are. It is false when the document is not JSON, or nothing that this can read: sdk.DecodeJSON knows.
func (f *fields) read(doc []byte, spans []span) bool {
	if len(doc) > math.MaxInt32 {
		return false
	}
	end := f.root.read(doc, rawjson.Space(doc, 0), 0, spans)
	return end != rawjson.Invalid && rawjson.Space(doc, end) == len(doc)
}

// read the value that begins at doc[at], and give where it ends.
func (f *field) read(doc []byte, at, depth int, spans []span) int {
	if at >= len(doc) {
		return rawjson.Invalid
	}
	clear(spans[f.slot:f.end])
	var end int
	var plain bool
	switch c := doc[at]; {
	case c == '"':
		end, plain = rawjson.String(doc, at)
	case c == '{' && len(f.below) > 0:
		end = f.members(doc, at, depth+1, spans)
	default:
		end = rawjson.Skip(doc, at, depth)
	}
	spans[f.slot] = span{int32(at), int32(end), plain} //nolint:gosec // read has compared the document's length with what an int32 holds
	return end
}

// members of the object that begins at doc[at].
func (f *field) members(doc []byte, at, depth int, spans []span) int {
	if depth > rawjson.MaxDepth {
		return rawjson.Invalid
	}
	if at = rawjson.Space(doc, at+1); at < len(doc) && doc[at] == '}' {
		return at + 1
	}
	for {
		end, value, plain := rawjson.Name(doc, at)
		if end == rawjson.Invalid {
			return rawjson.Invalid
		}
		if next := f.find(doc[at:end], plain); next != nil {
			at = next.read(doc, value, depth, spans)
		} else {
			at = rawjson.Skip(doc, value, depth)
		}
		if at == rawjson.Invalid {
			return rawjson.Invalid
		}
		if at = rawjson.Space(doc, at); at >= len(doc) {
			return rawjson.Invalid
		}
		switch doc[at] {
		case '}':
			return at + 1
		case ',':
			at = rawjson.Space(doc, at+1)
		default:
			return rawjson.Invalid
		}
	}
}

// find the field of a member's name, which is given with its quotes.
func (f *field) find(quoted []byte, plain bool) *field {
	if !plain {
		name, err := sdk.DecodeJSON(quoted)
		if err != nil {
			return nil
		}
		text, _ := name.(string)
		return f.child(text)
	}
	name := quoted[1 : len(quoted)-1]
	for i := range f.below {
		if f.below[i].name == string(name) {
			return &f.below[i]
		}
	}
	return nil
}

// document is the body with nothing but the fields in it: who looks at these alone cannot tell it from the whole. spans are what read found.
func (f *field) document(doc []byte, spans []span) (any, error) {
	s := spans[f.slot]
	switch {
	case f.whole || len(f.below) > 0 && doc[s.from] != '{':
		return sdk.DecodeJSON(doc[s.from:s.to])
	case len(f.below) == 0:
		return nil, nil // nobody asks more than whether it is there
	}
	m := make(map[string]any, len(f.below))
	for i := range f.below {
		below := &f.below[i]
		if spans[below.slot].to == 0 {
			continue
		}
		v, err := below.document(doc, spans)
		if err != nil {
			return nil, err
		}
		m[below.name] = v
	}
	return m, nil
}
