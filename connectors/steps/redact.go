package steps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/internal/rawjson"
	"github.com/metip/metip/connectors/sdk"
)

// Redaction drops or masks fields of a JSON body where they lie: every other byte of a value stays as it was, numbers and order included. It
// is safe for concurrent use.
//
// It fails closed. A field that is not there is no error; but a path that expects an object or array and meets something else (an array
// where one person was, a text where an object was) is one, for the field may have moved there.
type Redaction struct {
	root target
	// mask as JSON; nil drops.
	mask []byte
}

// CompileRedaction of paths. An error is a *FieldError.
func CompileRedaction(r *contract.Redact) (*Redaction, error) {
	out := &Redaction{}
	if len(r.Paths) == 0 || len(r.Paths) > maxPaths {
		return nil, &FieldError{Field: "redact.paths", Err: fmt.Errorf("there must be one path, and at most %d", maxPaths)}
	}
	for i, text := range r.Paths {
		path, err := parsePath(text)
		if err != nil {
			return nil, &FieldError{Field: fmt.Sprintf("redact.paths[%d]", i), Value: text, Err: err}
		}
		out.root.add(path)
	}
	out.root.finish()
	if r.Mask != nil {
		if len(*r.Mask) > maxMask {
			return nil, &FieldError{Field: "redact.mask", Value: *r.Mask, Err: fmt.Errorf("it is longer than %d bytes", maxMask)}
		}
		mask, err := encodeJSON(*r.Mask, true)
		if err != nil {
			return nil, &FieldError{Field: "redact.mask", Value: *r.Mask, Err: err}
		}
		out.mask = mask
	}
	return out, nil
}

type redactStep struct{ *Redaction }

func (s redactStep) Apply(_ context.Context, m *sdk.Message) (bool, error) {
	if m.Claim != nil {
		return false, sdk.ErrTooLarge
	}
	if m.Format != sdk.FormatJSON && m.Format != "" {
		return false, fmt.Errorf("redact needs a JSON body; this one is %s", m.Format)
	}
	m.Work()
	out, err := s.Redact(m.Data)
	if errors.Is(err, errNotJSON) {
		if _, err := m.Body(); err != nil {
			return false, err
		}
	}
	if err != nil {
		return false, err
	}
	if len(out) > 0 {
		m.SetData(out)
	}
	return true, nil
}

var errNotJSON = errors.New("the body is not JSON")

// Redact a document. The result is nil when nothing in it is to be redacted.
func (r *Redaction) Redact(doc []byte) ([]byte, error) {
	e := editor{doc: doc, mask: r.mask}
	at := rawjson.Space(doc, 0)
	if at >= len(doc) {
		return nil, errNotJSON
	}
	e.targets = append(e.targets, &r.root)
	end, err := e.value(at, 0, 0)
	if err != nil {
		return nil, err
	}
	if rawjson.Space(doc, end) != len(doc) {
		return nil, errNotJSON
	}
	if e.copied == 0 {
		return nil, nil
	}
	return append(e.out, doc[e.copied:]...), nil
}

// editor copies a document but for what is redacted.
type editor struct {
	doc, mask, out []byte
	// copied is up to where doc is in out, or left out.
	copied int
	// targets that are looked for, those of the value at hand last; path has the names that lead to it, for errors.
	targets []*target
	path    [][]byte
}

// cut what is between from and to, and put something else there.
func (e *editor) cut(from, to int, instead []byte) error {
	if e.out == nil {
		e.out = make([]byte, 0, len(e.doc)+len(instead))
	}
	e.out = append(append(e.out, e.doc[e.copied:from]...), instead...)
	e.copied = to
	if len(e.out) > maxResult {
		return errResult
	}
	return nil
}

// value at an offset, for the targets from first on. It gives the offset after it.
func (e *editor) value(at, depth, first int) (int, error) {
	if at >= len(e.doc) {
		return 0, errNotJSON
	}
	if first == len(e.targets) {
		return e.skip(at, depth)
	}
	c := e.doc[at]
	if !slices.ContainsFunc(e.targets[first:], func(t *target) bool { return t.fits(c) }) {
		return 0, fmt.Errorf("%s is %s, and no path of redact says where in it the fields are", e.place(), kindOf(c))
	}
	switch c {
	case '{':
		return e.container(at, depth+1, first, '}')
	case '[':
		return e.container(at, depth+1, first, ']')
	default:
		return e.skip(at, depth)
	}
}

func (e *editor) skip(at, depth int) (int, error) {
	end := rawjson.Skip(e.doc, at, depth)
	if end == rawjson.Invalid {
		return 0, errNotJSON
	}
	return end, nil
}

// container is an object or array. What is dropped takes with it the comma before it, or the one after it where it was first.
func (e *editor) container(at, depth, first int, closing byte) (int, error) {
	if depth > rawjson.MaxDepth {
		return 0, errNotJSON
	}
	at = rawjson.Space(e.doc, at+1)
	if at < len(e.doc) && e.doc[at] == closing {
		return at + 1, nil
	}
	for kept, comma := false, -1; ; {
		end, dropped, err := e.item(at, depth, first, closing == '}')
		if err != nil {
			return 0, err
		}
		if dropped && kept {
			err = e.cut(comma, end, nil)
		} else if dropped {
			err = e.cut(at, end, nil)
		}
		if err != nil {
			return 0, err
		}
		kept = kept || !dropped
		comma = rawjson.Space(e.doc, end)
		switch {
		case comma >= len(e.doc):
			return 0, errNotJSON
		case e.doc[comma] == closing:
			return comma + 1, nil
		case e.doc[comma] != ',':
			return 0, errNotJSON
		}
		at = rawjson.Space(e.doc, comma+1)
		if !kept {
			if err := e.cut(end, at, nil); err != nil {
				return 0, err
			}
		}
	}
}

// item of a container: a member or an element. It is dropped when a path ends here and there is no mask.
func (e *editor) item(at, depth, first int, member bool) (end int, dropped bool, err error) {
	value, name := at, everyElement
	from := len(e.targets)
	if member {
		quoted, after, plain := rawjson.Name(e.doc, at)
		if quoted == rawjson.Invalid {
			return 0, false, errNotJSON
		}
		if name, err = memberName(e.doc[at:quoted], plain); err != nil {
			return 0, false, err
		}
		value = after
	}
	here := e.follow(first, from, name, member)
	defer func() { e.targets = e.targets[:from] }()
	if here {
		if end, err = e.skip(value, depth); err == nil && e.mask != nil {
			err = e.cut(value, end, e.mask)
		}
		return end, e.mask == nil, err
	}
	e.path = append(e.path, name)
	end, err = e.value(value, depth, from)
	e.path = e.path[:len(e.path)-1]
	return end, false, err
}

// follow the targets between first and to into a member or element: those that go on are put behind them. here tells that a path ends.
func (e *editor) follow(first, to int, name []byte, member bool) (here bool) {
	add := func(t *target) {
		if t != nil {
			here = here || t.here
			e.targets = append(e.targets, t)
		}
	}
	for i := first; i < to; i++ {
		t := e.targets[i]
		if member {
			add(t.members[string(name)])
			add(t.any)
			add(t.anywhere[string(name)])
		} else {
			add(t.elements)
		}
		add(t.onward)
	}
	return here
}

func memberName(quoted []byte, plain bool) ([]byte, error) {
	if plain {
		return quoted[1 : len(quoted)-1], nil
	}
	v, err := sdk.DecodeJSON(quoted)
	name, ok := v.(string)
	if err != nil || !ok {
		return nil, errNotJSON
	}
	return []byte(name), nil
}

// everyElement stands for the elements of an array where the names of members stand.
var everyElement = []byte("[*]")

// place of the value at hand, for errors: names of fields, never what they hold.
func (e *editor) place() string {
	if len(e.path) == 0 {
		return "the body"
	}
	var out []byte
	for i, name := range e.path {
		if i > 0 && !bytes.Equal(name, everyElement) {
			out = append(out, '.')
		}
		out = append(out, name...)
	}
	return fmt.Sprintf("%.200q", out)
}

func kindOf(first byte) string {
	switch first {
	case '{':
		return "an object"
	case '[':
		return "an array"
	default:
		return "neither object nor array"
	}
}
