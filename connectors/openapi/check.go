package openapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/metip/metip/connectors/schema"
	"github.com/metip/metip/connectors/sdk"
)

// Request finds the operation that a request is for, and judges it. The error is an *sdk.CallError, whose text names place and rule and no value.
func (d *Document) Request(ctx context.Context, r *sdk.Request) (*Operation, error) {
	item, values, err := d.find(r.Path)
	if err != nil {
		return nil, err
	}
	o := item.operations[r.Method]
	if o == nil && r.Method == http.MethodHead {
		o = item.operations[http.MethodGet]
	}
	if o == nil {
		return nil, sdk.CallErrorf(http.StatusMethodNotAllowed, "the service's OpenAPI document has no %s of %s", r.Method, item.template)
	}
	query, err := url.ParseQuery(r.Query)
	if err != nil {
		return nil, sdk.CallErrorf(http.StatusBadRequest, "the query is not percent-encoded as it should be")
	}
	for i := range o.parameters {
		if err := o.parameters[i].check(ctx, values, query, r.Header); err != nil {
			return nil, sdk.CallErrorf(http.StatusBadRequest, "%s: %w", o.name, err)
		}
	}
	if o.body == nil {
		return o, nil
	}
	if len(r.Data) == 0 {
		if o.body.required {
			return nil, sdk.CallErrorf(http.StatusBadRequest, "%s: it needs a body", o.name)
		}
		return o, nil
	}
	known, err := o.body.check(ctx, r.ContentType, &r.Message)
	switch {
	case !known:
		return nil, sdk.CallErrorf(http.StatusUnsupportedMediaType, "%s: it does not take a body of this content type", o.name)
	case err != nil:
		return nil, sdk.CallErrorf(http.StatusBadRequest, "%s: the body: %w", o.name, err)
	}
	return o, nil
}

// Answer judges an answer to the operation's request. The error says what is wrong, with place and rule and no value. A status that the
// document does not have is wrong when it claims success.
func (o *Operation) Answer(ctx context.Context, method string, a *sdk.Answer) error {
	status := strconv.Itoa(a.Status)
	b := o.answers[status]
	for _, other := range []string{status[:1] + "XX", "default"} {
		if b == nil {
			b = o.answers[other]
		}
	}
	if b == nil {
		if a.Status/100 == 2 {
			return fmt.Errorf("%s: the document has no answer %d", o.name, a.Status)
		}
		return nil
	}
	if len(a.Data) == 0 || method == http.MethodHead {
		return nil
	}
	known, err := b.check(ctx, a.ContentType, &a.Message)
	switch {
	case !known:
		return fmt.Errorf("%s: the answer %d is of a content type that the document does not have", o.name, a.Status)
	case err != nil:
		return fmt.Errorf("%s: the body of the answer %d: %w", o.name, a.Status, err)
	}
	return nil
}

// find the path, and the values of its parameters.
func (d *Document) find(path string) (*pathItem, map[string]string, error) {
	if path == "" {
		path = "/"
	}
	raw := strings.Split(path[1:], "/")
	plain := make([]string, len(raw))
	for i, s := range raw {
		var err error
		if plain[i], err = url.PathUnescape(s); err != nil {
			return nil, nil, sdk.CallErrorf(http.StatusBadRequest, "the path is not percent-encoded as it should be")
		}
	}
	for _, item := range d.paths[len(raw)] {
		if values, ok := item.match(plain); ok {
			return item, values, nil
		}
	}
	return nil, nil, sdk.CallErrorf(http.StatusNotFound, "the service's OpenAPI document has no such path")
}

func (p *pathItem) match(segments []string) (values map[string]string, ok bool) {
	for i := range p.segments {
		s, text := &p.segments[i], segments[i]
		switch {
		case len(s.names) == 0:
			if s.plain != text {
				return nil, false
			}
			continue
		case text == "":
			return nil, false
		case values == nil:
			values = map[string]string{}
		}
		if s.pattern == nil {
			values[s.names[0]] = text
			continue
		}
		found := s.pattern.FindStringSubmatch(text)
		if found == nil {
			return nil, false
		}
		for k, name := range s.names {
			values[name] = found[k+1]
		}
	}
	return values, true
}

func (p *parameter) check(ctx context.Context, path map[string]string, query url.Values, header map[string][]string) error {
	var values []string
	switch p.in {
	case "path":
		if v, has := path[p.name]; has {
			values = []string{v}
		}
	case "query":
		values = query[p.name]
	default:
		values = header[p.name]
	}
	if len(values) == 0 {
		if p.required {
			return fmt.Errorf("the %s parameter %s is missing", p.in, p.name)
		}
		return nil
	}
	if p.schema == nil {
		return nil
	}
	if err := p.schema.Check(ctx, p.value(values)); err != nil {
		return fmt.Errorf("the %s parameter %s: %w", p.in, p.name, unnamed(err))
	}
	return nil
}

// value of a parameter as JSON would have it.
func (p *parameter) value(values []string) any {
	if !p.list {
		return scalar(values[0], p.types)
	}
	if !p.explode || p.in != "query" {
		values = strings.Split(strings.Join(values, ","), ",")
	}
	out := make([]any, len(values))
	for i, v := range values {
		out[i] = scalar(strings.TrimSpace(v), p.items)
	}
	return out
}

// scalar is what a text means where one of these types is asked for; itself if it means none of them.
func scalar(text string, types []string) any {
	number := slices.Contains(types, "integer") || slices.Contains(types, "number")
	switch {
	case number && text != "" && (text[0] == '-' || text[0] >= '0' && text[0] <= '9'):
		if v, err := sdk.DecodeJSON([]byte(text)); err == nil {
			return v
		}
	case slices.Contains(types, "boolean") && (text == "true" || text == "false"):
		return text == "true"
	}
	return text
}

// check a body that is there. known: the content type is one of its.
func (b *body) check(ctx context.Context, contentType string, m *sdk.Message) (known bool, err error) {
	if len(b.media) == 0 {
		return true, nil
	}
	media, _, _ := strings.Cut(strings.ToLower(contentType), ";")
	media = strings.TrimSpace(media)
	var s *schema.Schema
	group, _, _ := strings.Cut(media, "/")
	for _, name := range []string{media, group + "/*", "*/*"} {
		if s, known = b.media[name]; known {
			break
		}
	}
	if !known || s == nil || !isJSON(media) {
		return known, nil
	}
	var document any
	if m.Format == sdk.FormatJSON {
		document, err = m.Body()
	} else if document, err = sdk.DecodeJSON(m.Data); err != nil {
		err = errors.New("it is not JSON")
	}
	if err == nil {
		err = unnamed(s.Check(ctx, document))
	}
	return true, err
}

// unnamed takes "the document" out of what a schema says.
func unnamed(err error) error {
	var v *schema.Violation
	if errors.As(err, &v) && v.Path == "" {
		return errors.New("it breaks the rule " + v.Rule)
	}
	return err
}
