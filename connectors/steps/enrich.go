package steps

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// Enrich makes a request of a message, or a key to look up, and puts the answer into its body. It is no Step that Run could run by itself: it is
// the engine that asks. It is safe for concurrent use.
type Enrich struct {
	// key of the entry; nil where a service is asked.
	key            *Value
	method         string
	path           *Template
	query, headers []namedTemplate
	body           *Body
	into           []string
	otherwise      *Body
}

type namedTemplate struct {
	name  string
	value *Template
}

// document is JSON that was checked, and is written as it stands.
type document []byte

func compileEnrich(s *contract.Enrich) (Step, error) {
	e := &Enrich{method: s.Method, into: strings.Split(s.Into, ".")}
	if (s.Service == "") == (s.Table == "") || s.Into == "" || slices.Contains(e.into, "") {
		return nil, &FieldError{Field: "enrich", Err: errors.New("it says not who is asked, or where the answer goes")}
	}
	if s.Default != "" {
		var err error
		if e.otherwise, err = CompileBody(s.Default); err != nil {
			return nil, &FieldError{Field: "enrich.default", Value: s.Default, Err: err}
		}
	}
	if s.Table != "" {
		var err error
		if e.key, err = CompileValue(s.Key); err != nil {
			return nil, &FieldError{Field: "enrich.table.key", Value: s.Key, Err: err}
		}
		return e, nil
	}
	if s.Method != http.MethodGet && s.Method != http.MethodPost || s.Body != "" && s.Method != http.MethodPost {
		return nil, &FieldError{Field: "enrich.call.method", Value: s.Method, Err: errors.New("it is GET, or POST where there is a body")}
	}
	var err error
	if e.path, err = compilePath(s.Path); err != nil {
		return nil, &FieldError{Field: "enrich.call.path", Value: s.Path, Err: err}
	}
	if e.query, err = compileTemplates("enrich.call.query", s.Query); err != nil {
		return nil, err
	}
	if e.headers, err = compileTemplates("enrich.call.headers", s.Headers); err != nil {
		return nil, err
	}
	if s.Body != "" {
		if e.body, err = CompileBody(s.Body); err != nil {
			return nil, &FieldError{Field: "enrich.call.body", Value: s.Body, Err: err}
		}
	}
	return e, nil
}

// compilePath refuses what a path cannot hold between its expressions.
func compilePath(text string) (*Template, error) {
	t, err := CompileTemplate(text)
	if err != nil {
		return nil, err
	}
	for i, p := range t.parts {
		switch {
		case i == 0 && (p.value != nil || p.text[0] != '/'):
			return nil, &Error{1, 1, "a path begins with /"}
		case p.value == nil && strings.ContainsAny(p.text, "?# \t\r\n\\"):
			return nil, errorAt(text, strings.Index(text, p.text)+strings.IndexAny(p.text, "?# \t\r\n\\"), "the path holds a character that must be percent-encoded; parameters go into query")
		}
	}
	return t, nil
}

func compileTemplates(field string, texts map[string]string) ([]namedTemplate, error) {
	var out []namedTemplate
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		t, err := CompileTemplate(texts[name])
		if err != nil {
			return nil, &FieldError{Field: fmt.Sprintf("%s[%s]", field, name), Value: texts[name], Err: err}
		}
		out = append(out, namedTemplate{name, t})
	}
	return out, nil
}

// Apply implements Step: nobody is there to ask.
func (*Enrich) Apply(context.Context, *sdk.Message) (bool, error) {
	return false, errors.New("a message cannot be enriched here")
}

// Key that a message looks up in a table.
func (e *Enrich) Key(m *sdk.Message) (string, error) {
	if m.Claim != nil {
		return "", sdk.ErrTooLarge // the entry goes into the body
	}
	key, err := correlationKey(e.key, m)
	if err != nil {
		return "", fmt.Errorf("table.%w", err)
	}
	return key, nil
}

// Request that a message makes. It says of the message what it is, and holds nothing of it but what the step names.
func (e *Enrich) Request(m *sdk.Message) (*sdk.Request, error) {
	if m.Claim != nil {
		return nil, sdk.ErrTooLarge // the answer goes into the body
	}
	r := &sdk.Request{Method: e.method}
	empty := false
	var err error
	r.Path, err = e.path.Expand(m, func(v string) string {
		empty = empty || v == ""
		return escapeURL(v)
	})
	if err == nil && empty {
		err = errors.New("a value that is inserted is empty")
	}
	if err != nil {
		return nil, fmt.Errorf("call.path: %w", err)
	}
	var query strings.Builder
	for _, q := range e.query {
		value, err := q.value.Expand(m, nil)
		if err != nil {
			return nil, fmt.Errorf("call.query[%s]: %w", q.name, err)
		}
		if query.Len() > 0 {
			query.WriteByte('&')
		}
		query.WriteString(escapeURL(q.name) + "=" + escapeURL(value))
	}
	r.Query = query.String()
	for _, h := range e.headers {
		value, err := h.value.Expand(m, nil)
		if err != nil {
			return nil, fmt.Errorf("call.headers[%s]: %w", h.name, err)
		}
		if value == "" {
			continue
		}
		if r.Header == nil {
			r.Header = make(map[string][]string, len(e.headers))
		}
		r.Header[strings.ToLower(h.name)] = []string{value}
	}
	r.Message = sdk.Message{ID: m.ID, Type: m.Type, Source: m.Source, Time: m.Time, Headers: map[string]string{}}
	if e.body != nil {
		if r.Data, err = e.body.Make(m); err != nil {
			return nil, fmt.Errorf("call.body: %w", err)
		}
		r.Format, r.ContentType = sdk.FormatJSON, "application/json"
	}
	if err := r.Check(); err != nil {
		return nil, fmt.Errorf("call: %w", err)
	}
	return r, nil
}

// escapeURL makes a value that means itself wherever in path or query it stands: all but unreserved characters are encoded.
func escapeURL(value string) string { return strings.ReplaceAll(url.QueryEscape(value), "+", "%20") }

// HasDefault tells whether there is something to say where nothing is known.
func (e *Enrich) HasDefault() bool { return e.otherwise != nil }

// Default goes into the body in place of an answer.
func (e *Enrich) Default(m *sdk.Message) error {
	value, err := e.otherwise.Make(m)
	if err != nil {
		return fmt.Errorf("default: %w", err)
	}
	return e.put(m, document(value))
}

// Merge an answer into the body: JSON as it stands, XML and text as a text, nothing as null.
func (e *Enrich) Merge(m *sdk.Message, a *sdk.Answer) error {
	var value any
	switch {
	case len(a.Data) == 0:
	case a.Format == sdk.FormatJSON:
		if err := sdk.CheckJSON(a.Data); err != nil {
			return errors.New("the answer says that it is JSON, and is not, or is nested too deeply")
		}
		value = document(a.Data)
	case a.Format == sdk.FormatXML || a.Format == sdk.FormatText:
		if !utf8.Valid(a.Data) {
			return errors.New("the answer is no UTF-8")
		}
		value = string(a.Data)
	default:
		return fmt.Errorf("the answer is of content type %.60q: a body takes JSON, XML and text", a.ContentType)
	}
	return e.put(m, value)
}

func (e *Enrich) put(m *sdk.Message, value any) error {
	body, err := m.Body()
	if err != nil {
		return err
	}
	object, ok := body.(map[string]any)
	if !ok {
		return errors.New("the message's body is no JSON object")
	}
	changed, err := with(object, e.into, value)
	if err != nil {
		return err
	}
	out, err := encodeJSON(changed, false)
	if err != nil {
		return err
	}
	if err := sdk.CheckJSON(out); err != nil {
		return fmt.Errorf("with the answer in it, %w", err)
	}
	setJSON(m, out)
	return nil
}

// with is a copy of an object that has the value at the path. What is not on the way is shared.
func with(object map[string]any, path []string, value any) (map[string]any, error) {
	out := make(map[string]any, len(object)+1)
	maps.Copy(out, object)
	if len(path) == 1 {
		out[path[0]] = value
		return out, nil
	}
	next, ok := object[path[0]].(map[string]any)
	if !ok && object[path[0]] != nil {
		return nil, fmt.Errorf("into: %s is there, and no object", path[0])
	}
	inner, err := with(next, path[1:], value)
	if err != nil {
		return nil, err
	}
	out[path[0]] = inner
	return out, nil
}
