package steps

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/metip/metip/connectors/sdk"
)

// Bounds of the headers that a step sets.
const (
	maxHeaderName  = 40
	maxHeaderValue = 4096
	// maxHeaders of a message: as many extension attributes as a source may send.
	maxHeaders = 32
)

// subjectHeader is the one of CloudEvents' own attributes that a step may set.
const subjectHeader = "subject"

// headerStep sets CloudEvents extensions, and the subject. Every value is made of the message as it came to the step.
type headerStep struct {
	names  []string
	values []*Template
}

func compileHeaders(headers map[string]string) (*headerStep, error) {
	s := &headerStep{names: slices.Sorted(maps.Keys(headers))}
	for _, name := range s.names {
		field := fmt.Sprintf("setHeaders[%s]", name)
		if err := checkHeaderName(name); err != nil {
			return nil, &FieldError{Field: field, Value: name, Err: err}
		}
		value, err := CompileTemplate(headers[name])
		if err != nil {
			return nil, &FieldError{Field: field, Value: headers[name], Err: err}
		}
		s.values = append(s.values, value)
	}
	return s, nil
}

// checkHeaderName refuses what is not the Route's to say.
func checkHeaderName(name string) error {
	switch name {
	case subjectHeader:
		return nil
	case "id", "source", "specversion", "type", "time", "data", "datacontenttype", "datacontentencoding", "dataschema":
		return fmt.Errorf("%s is CloudEvents' own: it says what the message is, which a step does not change", name)
	case "marking":
		return errors.New("the protective marking is the Integration's: a step neither raises nor lowers it")
	case "partitionkey":
		return errors.New("the order that the partition key gives is decided where the message enters the bus")
	case "traceparent", "tracestate":
		return errors.New("the trace is the bus's own")
	}
	if name == "" || len(name) > maxHeaderName || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return fmt.Errorf("a name is 1 to %d of a-z and 0-9, as CloudEvents has it", maxHeaderName)
	}
	return nil
}

func (s *headerStep) Apply(_ context.Context, m *sdk.Message) (bool, error) {
	var buffer [8]string
	values := buffer[:0]
	for i, t := range s.values {
		value, err := t.Expand(m, nil)
		if err != nil {
			return false, fmt.Errorf("%s: %w", s.names[i], err)
		}
		if len(value) > maxHeaderValue {
			return false, fmt.Errorf("%s: the value has %d bytes, and %d are allowed", s.names[i], len(value), maxHeaderValue)
		}
		values = append(values, value)
	}
	for i, name := range s.names {
		switch {
		case name == subjectHeader:
			m.Subject = values[i]
		case values[i] == "":
			delete(m.Headers, name)
		default:
			if m.Headers == nil {
				m.Headers = make(map[string]string, len(s.names))
			}
			m.Headers[name] = values[i]
		}
	}
	if n := extensions(m.Headers); n > maxHeaders {
		return false, fmt.Errorf("the message has %d extension attributes, and %d are allowed", n, maxHeaders)
	}
	return true, nil
}

// extensions of a message: its headers but for those of the trace, and those of HTTP that a request or answer has.
func extensions(headers map[string]string) int {
	n := len(headers)
	if n <= maxHeaders {
		return n
	}
	for name := range headers {
		if name == "traceparent" || name == "tracestate" || strings.Contains(name, "-") {
			n--
		}
	}
	return n
}
