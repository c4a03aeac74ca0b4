package steps

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/metip/metip/connectors/sdk"
)

// view is one message as one run of an expression sees it. It reads the body's bytes at most once, and only when a field is asked for.
type view struct {
	m      *sdk.Message
	fields *fields
	state  viewState
	doc    []byte
	spans  [maxFields]span
}

type viewState uint8

const (
	unread viewState = iota
	found
	unreadable
)

// read the body's bytes. It is false when the body has to be decoded.
func (v *view) read() bool {
	if v.state == unread {
		v.state = unreadable
		if v.fields != nil {
			if doc, ok := v.m.Undecoded(); ok && v.fields.read(doc, v.spans[:]) {
				v.state, v.doc = found, doc
			}
		}
	}
	return v.state == found
}

// data is the body, or the part of it that the expression can look at.
func (v *view) data() (any, error) {
	if v.read() {
		v.m.Work()
		return v.fields.root.document(v.doc, v.spans[:])
	}
	return v.m.Body()
}

// follow a path into a body. It is not ok when there is something on the way that CEL must judge.
func follow(value any, path []string) (at any, ok bool, err error) {
	for _, name := range path {
		object, is := value.(map[string]any)
		if !is {
			return nil, false, nil
		}
		if value, is = object[name]; !is {
			return nil, false, fmt.Errorf("no such key: %s", name)
		}
	}
	if i, isInt := value.(int); isInt {
		return int64(i), true, nil
	}
	return value, true, nil
}

// run the interpreter.
func (p *program) run(v *view) (ref.Val, error) {
	if !v.read() {
		return p.eval((*whole)(v.m))
	}
	data, err := v.data()
	if err != nil {
		return nil, err
	}
	return p.eval(&partial{(*whole)(v.m), data})
}

func (p *program) eval(variables cel.Activation) (ref.Val, error) {
	x, _, err := p.prg.Eval(variables)
	if err != nil {
		if strings.Contains(err.Error(), "cost limit exceeded") || errors.Is(err, context.DeadlineExceeded) {
			return nil, errors.New("the expression costs more than one message may")
		}
		return nil, discreetCEL(err, p.text)
	}
	return x, nil
}

// partial gives a message's variables to CEL, and of the body what was read of it.
type partial struct {
	*whole
	data any
}

// ResolveName is of cel.Activation.
func (p *partial) ResolveName(name string) (any, bool) {
	if name == body {
		return p.data, true
	}
	return p.whole.ResolveName(name)
}

// whole gives a message's variables to CEL, and decodes the body only when it is asked for.
type whole sdk.Message

// Parent is of cel.Activation.
func (w *whole) Parent() cel.Activation { return nil }

// ResolveName is of cel.Activation.
func (w *whole) ResolveName(name string) (any, bool) {
	m := (*sdk.Message)(w)
	switch name {
	case body:
		x, err := m.Body()
		if err != nil {
			return types.WrapErr(err), true
		}
		return x, true
	case "type":
		return m.Type, true
	case "id":
		return m.ID, true
	case "source":
		return m.Source, true
	case "subject":
		return m.Subject, true
	case "time":
		return m.Time, true
	case "headers":
		return m.Headers, true
	default:
		return nil, false
	}
}
