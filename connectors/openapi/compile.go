package openapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/metip/metip/connectors/schema"
)

// compiler of one document.
type compiler struct {
	root       map[string]any
	document   *Document
	operations int
	// schemas that are compiled already, by their text: many operations answer with the same. size is that of all of them, each with what it
	// refers to.
	schemas map[string]*schema.Schema
	size    int
}

// maxSchemas is the size of all schemas, each with the components that it refers to.
const maxSchemas = 2 << 20

// pointer to a place, for errors.
func pointer(base string, tokens ...string) string {
	for _, t := range tokens {
		base += "/" + strings.ReplaceAll(strings.ReplaceAll(t, "~", "~0"), "/", "~1")
	}
	return base
}

func at(place string, format string, a ...any) error {
	return fmt.Errorf("at %s: %w", place, fmt.Errorf(format, a...))
}

func (c *compiler) paths() error {
	paths, ok := c.root["paths"].(map[string]any)
	if !ok || len(paths) == 0 {
		return errors.New("the document has no paths")
	}
	for _, template := range slices.Sorted(maps.Keys(paths)) {
		if strings.HasPrefix(template, "x-") {
			continue
		}
		place := pointer("", "paths", template)
		item, err := c.resolve(paths[template], place)
		if err != nil {
			return err
		}
		if err := c.path(template, item, place); err != nil {
			return err
		}
	}
	for _, items := range c.document.paths {
		slices.SortStableFunc(items, func(a, b *pathItem) int {
			for i := range a.segments {
				if x, y := a.segments[i].rank(), b.segments[i].rank(); x != y {
					return x - y
				}
			}
			return 0
		})
	}
	return nil
}

// rank of a segment: plain text comes before a pattern, and that before a parameter.
func (s *segment) rank() int {
	switch {
	case len(s.names) == 0:
		return 0
	case s.pattern != nil:
		return 1
	default:
		return 2
	}
}

func (c *compiler) path(template string, item map[string]any, place string) error {
	segments, err := segmentsOf(template)
	if err != nil {
		return at(place, "%w", err)
	}
	p := &pathItem{template: template, segments: segments, operations: map[string]*Operation{}}
	common, err := c.parameters(item["parameters"], pointer(place, "parameters"))
	if err != nil {
		return err
	}
	for _, method := range methods {
		raw, has := item[strings.ToLower(method)]
		if !has {
			continue
		}
		if c.operations++; c.operations > maxOperations {
			return fmt.Errorf("the document has more than %d operations", maxOperations)
		}
		here := pointer(place, strings.ToLower(method))
		fields, ok := raw.(map[string]any)
		if !ok {
			return at(here, "an operation is an object")
		}
		o, err := c.operation(fields, here, common)
		if err != nil {
			return err
		}
		o.name, o.path = method+" "+template, p
		p.operations[method] = o
	}
	c.document.paths[len(segments)] = append(c.document.paths[len(segments)], p)
	return nil
}

var placeholder = regexp.MustCompile(`\{([^{}/]+)\}`)

func segmentsOf(template string) ([]segment, error) {
	if !strings.HasPrefix(template, "/") {
		return nil, errors.New("a path begins with /")
	}
	var out []segment
	for text := range strings.SplitSeq(template[1:], "/") {
		found := placeholder.FindAllStringSubmatchIndex(text, -1)
		s := segment{plain: text}
		var pattern strings.Builder
		last := 0
		for _, f := range found {
			s.names = append(s.names, text[f[2]:f[3]])
			pattern.WriteString(regexp.QuoteMeta(text[last:f[0]]) + `(.+?)`)
			last = f[1]
		}
		pattern.WriteString(regexp.QuoteMeta(text[last:]))
		if strings.ContainsAny(placeholder.ReplaceAllString(text, ""), "{}") {
			return nil, fmt.Errorf("the braces of %q do not match", text)
		}
		if len(found) > 0 && (len(found) > 1 || found[0][0] > 0 || found[0][1] < len(text)) {
			var err error
			if s.pattern, err = regexp.Compile("^" + pattern.String() + "$"); err != nil {
				return nil, err
			}
		}
		out = append(out, s)
	}
	return out, nil
}

func (c *compiler) operation(fields map[string]any, place string, common []parameter) (*Operation, error) {
	own, err := c.parameters(fields["parameters"], pointer(place, "parameters"))
	if err != nil {
		return nil, err
	}
	o := &Operation{parameters: own, answers: map[string]*body{}}
	for _, p := range common {
		if !slices.ContainsFunc(own, func(q parameter) bool { return q.name == p.name && q.in == p.in }) {
			o.parameters = append(o.parameters, p)
		}
	}
	if raw, has := fields["requestBody"]; has {
		if o.body, err = c.body(raw, pointer(place, "requestBody")); err != nil {
			return nil, err
		}
	}
	responses, _ := fields["responses"].(map[string]any)
	for status, raw := range responses {
		if strings.HasPrefix(status, "x-") {
			continue
		}
		if o.answers[strings.ToUpper(status)], err = c.body(raw, pointer(place, "responses", status)); err != nil {
			return nil, err
		}
	}
	if other, has := o.answers["DEFAULT"]; has {
		o.answers["default"] = other
	}
	return o, nil
}

func (c *compiler) parameters(raw any, place string) (out []parameter, err error) {
	list, ok := raw.([]any)
	if raw != nil && !ok {
		return nil, at(place, "parameters are a list")
	}
	if len(list) > maxParameters {
		return nil, at(place, "there are more than %d parameters", maxParameters)
	}
	for i, x := range list {
		here := pointer(place, strconv.Itoa(i))
		fields, err := c.resolve(x, here)
		if err != nil {
			return nil, err
		}
		p, err := c.parameter(fields, here)
		if err != nil {
			return nil, err
		}
		if p != nil {
			out = append(out, *p)
		}
	}
	return out, nil
}

// parameter is nil for one that the bus does not carry, or carries elsewhere.
func (c *compiler) parameter(fields map[string]any, place string) (*parameter, error) {
	p := &parameter{}
	p.name, _ = fields["name"].(string)
	p.in, _ = fields["in"].(string)
	p.required, _ = fields["required"].(bool)
	if p.name == "" {
		return nil, at(place, "a parameter has a name")
	}
	usual := "simple"
	switch p.in {
	case "path":
		p.required = true
	case "query":
		usual = "form"
	case "header":
		if p.name = strings.ToLower(p.name); p.name == "accept" || p.name == "content-type" || p.name == "authorization" {
			return nil, nil
		}
	case "cookie":
		return nil, nil
	default:
		return nil, at(place, "a parameter is in path, query, header or cookie, not in %q", p.in)
	}
	style, has := fields["style"].(string)
	p.explode = usual == "form"
	if explode, set := fields["explode"].(bool); set {
		p.explode = explode
	}
	raw := fields["schema"]
	if raw == nil || has && style != usual {
		return p, nil
	}
	p.types, p.items = c.types(raw, 0)
	p.list = slices.Contains(p.types, "array")
	if slices.Contains(p.types, "object") {
		return p, nil
	}
	var err error
	p.schema, err = c.schema(raw, pointer(place, "schema"))
	return p, err
}

// types that a schema names, and those of its items; by the way of references and allOf, not too far.
func (c *compiler) types(raw any, depth int) (types, items []string) {
	fields, ok := raw.(map[string]any)
	if !ok || depth > 8 {
		return nil, nil
	}
	if ref, is := fields["$ref"].(string); is {
		target, err := c.follow(ref)
		if err != nil {
			return nil, nil
		}
		return c.types(target, depth+1)
	}
	switch t := fields["type"].(type) {
	case string:
		types = []string{t}
	case []any:
		for _, x := range t {
			if s, is := x.(string); is {
				types = append(types, s)
			}
		}
	}
	for _, key := range []string{"allOf", "anyOf", "oneOf"} {
		parts, _ := fields[key].([]any)
		for _, part := range parts {
			more, ofItems := c.types(part, depth+1)
			types, items = append(types, more...), append(items, ofItems...)
		}
	}
	if of, has := fields["items"]; has {
		more, _ := c.types(of, depth+1)
		items = append(items, more...)
	}
	return types, items
}

func (c *compiler) body(raw any, place string) (*body, error) {
	fields, err := c.resolve(raw, place)
	if err != nil {
		return nil, err
	}
	b := &body{media: map[string]*schema.Schema{}}
	b.required, _ = fields["required"].(bool)
	content, _ := fields["content"].(map[string]any)
	for media, x := range content {
		here := pointer(place, "content", media)
		kind, ok := x.(map[string]any)
		if !ok {
			return nil, at(here, "a media type is an object")
		}
		media, _, _ = strings.Cut(strings.ToLower(media), ";")
		media = strings.TrimSpace(media)
		b.media[media] = nil
		if s, has := kind["schema"]; has && (isJSON(media) || strings.HasSuffix(media, "*")) {
			if b.media[media], err = c.schema(s, pointer(here, "schema")); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

func isJSON(media string) bool {
	return strings.HasSuffix(media, "/json") || strings.HasSuffix(media, "+json")
}

// resolve an object that may be a reference.
func (c *compiler) resolve(raw any, place string) (map[string]any, error) {
	for range 8 {
		fields, ok := raw.(map[string]any)
		if !ok {
			return nil, at(place, "there has to be an object")
		}
		ref, is := fields["$ref"].(string)
		if !is {
			return fields, nil
		}
		var err error
		if raw, err = c.follow(ref); err != nil {
			return nil, at(place, "%w", err)
		}
	}
	return nil, at(place, "the references go in a circle")
}

// follow a reference within the document.
func (c *compiler) follow(ref string) (any, error) {
	path, ok := strings.CutPrefix(ref, "#/")
	if !ok {
		return nil, fmt.Errorf("$ref %q leads out of the document: references begin with #/", ref)
	}
	var v any = c.root
	for token := range strings.SplitSeq(path, "/") {
		token = strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
		fields, ok := v.(map[string]any)
		if ok {
			v, ok = fields[token]
		}
		if !ok {
			return nil, fmt.Errorf("$ref %q leads nowhere", ref)
		}
	}
	return v, nil
}

// componentSchemas is where schemas may refer to.
const componentSchemas = "#/components/schemas/"

// schema compiles one, together with the components that it refers to and no others.
func (c *compiler) schema(raw any, place string) (*schema.Schema, error) {
	key, err := json.Marshal(raw)
	if err != nil {
		return nil, at(place, "%w", err)
	}
	if s, has := c.schemas[string(key)]; has {
		return s, nil
	}
	needed := map[string]any{}
	if err := c.collect(raw, needed, 0); err != nil {
		return nil, at(place, "%w", err)
	}
	whole := map[string]any{"allOf": []any{raw}}
	if len(needed) > 0 {
		whole["components"] = map[string]any{"schemas": needed}
	}
	text, err := json.Marshal(whole)
	if err != nil {
		return nil, at(place, "%w", err)
	}
	if c.size += len(text); c.size > maxSchemas {
		return nil, at(place, "the schemas, each with the components that it refers to, take more than %d MiB altogether", maxSchemas>>20)
	}
	s, err := schema.Compile(string(text))
	c.schemas[string(key)] = s
	var wrong *schema.Error
	if errors.As(err, &wrong) {
		where, own := strings.CutPrefix(wrong.Pointer, "/allOf/0")
		if !own {
			place = ""
		}
		return nil, at(place+where, "%s", wrong.Message)
	}
	return s, err
}

// collect the components that a schema refers to.
func (c *compiler) collect(raw any, needed map[string]any, depth int) error {
	if depth > 200 {
		return errors.New("the schema is nested too deeply")
	}
	switch v := raw.(type) {
	case []any:
		for _, x := range v {
			if err := c.collect(x, needed, depth+1); err != nil {
				return err
			}
		}
	case map[string]any:
		for key, x := range v {
			if ref, is := x.(string); key == "$ref" && is {
				if err := c.component(ref, needed, depth); err != nil {
					return err
				}
				continue
			}
			if err := c.collect(x, needed, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *compiler) component(ref string, needed map[string]any, depth int) error {
	rest, ok := strings.CutPrefix(ref, componentSchemas)
	if !ok {
		return fmt.Errorf("$ref %q: schemas refer to %s", ref, componentSchemas)
	}
	token, _, _ := strings.Cut(rest, "/")
	name := strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
	if _, has := needed[name]; has {
		return nil
	}
	target, err := c.follow(componentSchemas + token)
	if err != nil {
		return err
	}
	needed[name] = target
	return c.collect(target, needed, depth+1)
}
