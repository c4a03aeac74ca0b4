package openapi

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/metip/metip/connectors/sdk"
)

const persons = `{
"openapi": "3.1.0", "info": {"title": "persons", "version": "1"}, "servers": [{"url": "https://elsewhere"}],
"paths": {
  "/persons": {
    "parameters": [{"name": "x-unit", "in": "header", "required": true, "schema": {"type": "integer"}}, {"name": "session", "in": "cookie", "required": true}],
    "get": {
      "parameters": [
        {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100, "format": "int32"}},
        {"name": "born", "in": "query", "schema": {"type": "string", "format": "date"}},
        {"name": "tag", "in": "query", "schema": {"type": "array", "items": {"type": "integer"}, "maxItems": 2}},
        {"name": "ids", "in": "query", "explode": false, "schema": {"$ref": "#/components/schemas/IDs"}},
        {"name": "deep", "in": "query", "style": "deepObject", "schema": {"type": "object"}},
        {"$ref": "#/components/parameters/Full"}
      ],
      "responses": {"200": {"description": "", "content": {"application/json": {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/Person"}}}}}, "default": {"$ref": "#/components/responses/Problem"}}
    },
    "post": {
      "parameters": [{"name": "x-unit", "in": "header", "schema": {"type": "string"}}],
      "requestBody": {"required": true, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Person"}}, "text/*": {}}},
      "responses": {"201": {"description": ""}, "4XX": {"description": "", "content": {"application/problem+json": {}}}}
    }
  },
  "/persons/{id}": {"get": {"parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "integer"}}], "responses": {"200": {"description": "", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Person"}}}}}}},
  "/persons/mine": {"get": {"responses": {"200": {"description": ""}}}},
  "/files/{name}.{kind}": {"get": {"parameters": [{"name": "kind", "in": "path", "required": true, "schema": {"enum": ["pdf", "txt"]}}], "responses": {"200": {"description": ""}}}},
  "/": {"get": {"responses": {"200": {"description": ""}}}}
},
"components": {
  "parameters": {"Full": {"name": "full", "in": "query", "schema": {"type": "boolean"}}},
  "responses": {"Problem": {"description": "", "content": {"application/problem+json": {"schema": {"type": "object", "required": ["title"]}}}}},
  "schemas": {
    "IDs": {"type": "array", "items": {"type": "integer"}},
    "Person": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "maxLength": 5}, "parent": {"$ref": "#/components/schemas/Person"}}},
    "Unused": {"$ref": "#/components/schemas/Nobody"}
  }
}}`

func compiled(t *testing.T, text string) *Document {
	t.Helper()
	d, err := Compile(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func request(method, path, query, contentType, body string) *sdk.Request {
	r := &sdk.Request{Method: method, Path: path, Query: query, Header: map[string][]string{"x-unit": {"7"}}}
	r.ContentType, r.Format, r.Data = contentType, sdk.FormatOf(contentType), []byte(body)
	return r
}

func TestRequests(t *testing.T) {
	d := compiled(t, persons)
	const json = "application/json; charset=utf-8"
	for _, c := range []struct {
		r      *sdk.Request
		status int
		text   string
	}{
		{request("GET", "/persons", "", "", ""), 0, "GET /persons"},
		{request("GET", "/persons", "limit=5&born=2000-01-31&tag=1&tag=2&ids=1,2,3&full=true&deep[x]=1&other=1", "", ""), 0, "GET /persons"},
		{request("HEAD", "/persons", "", "", ""), 0, "GET /persons"},
		{request("GET", "", "", "", ""), 0, "GET /"},
		{request("GET", "/persons/17", "", "", ""), 0, "GET /persons/{id}"},
		{request("GET", "/persons/%31%37", "", "", ""), 0, "GET /persons/{id}"},
		{request("GET", "/persons/mine", "", "", ""), 0, "GET /persons/mine"},
		{request("GET", "/files/a.b.pdf", "", "", ""), 400, "kind"}, // the first that fits: a and b.pdf
		{request("GET", "/files/a.pdf", "", "", ""), 0, "GET /files/{name}.{kind}"},
		{request("POST", "/persons", "", json, `{"name":"Ada","parent":{"name":"B"}}`), 0, "POST /persons"},
		{request("POST", "/persons", "", "text/plain", `anything`), 0, "POST /persons"},

		{request("GET", "/nothing", "", "", ""), 404, "no such path"},
		{request("GET", "/persons/17/x", "", "", ""), 404, "no such path"},
		{request("GET", "/persons/", "", "", ""), 404, "no such path"},
		{request("DELETE", "/persons", "", "", ""), 405, "no DELETE of /persons"},
		{request("GET", "/persons/x", "", "", ""), 400, "the path parameter id"},
		{request("GET", "/persons", "limit=0", "", ""), 400, "the query parameter limit"},
		{request("GET", "/persons", "limit=x", "", ""), 400, "the query parameter limit"},
		{request("GET", "/persons", "limit=1e9999999999", "", ""), 400, "the query parameter limit"},
		{request("GET", "/persons", "born=yesterday", "", ""), 400, "the query parameter born"},
		{request("GET", "/persons", "tag=1&tag=2&tag=3", "", ""), 400, "the query parameter tag"},
		{request("GET", "/persons", "ids=1,x", "", ""), 400, "the query parameter ids"},
		{request("GET", "/persons", "full=yes", "", ""), 400, "the query parameter full"},
		{request("GET", "/persons", "a=%zz", "", ""), 400, "percent-encoded"},
		{request("POST", "/persons", "", "", ""), 400, "needs a body"},
		{request("POST", "/persons", "", "application/xml", "<a/>"), 415, "content type"},
		{request("POST", "/persons", "", json, `{"name":"secret-name"}`), 400, "/name breaks the rule"},
		{request("POST", "/persons", "", json, `{"name":"a","parent":{}}`), 400, "/parent"},
		{request("POST", "/persons", "", json, `{`), 400, "not JSON"},
	} {
		o, err := d.Request(t.Context(), c.r)
		var refused *sdk.CallError
		switch {
		case c.status == 0 && (err != nil || o.name != c.text):
			t.Errorf("%s %s?%s: %v %v, want %s", c.r.Method, c.r.Path, c.r.Query, o, err, c.text)
		case c.status != 0 && (!errors.As(err, &refused) || refused.Status != c.status || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "secret-name")):
			t.Errorf("%s %s?%s: %v, want %d %s", c.r.Method, c.r.Path, c.r.Query, err, c.status, c.text)
		}
	}
	r := request("GET", "/persons", "", "", "")
	r.Header = nil
	if _, err := d.Request(t.Context(), r); err == nil || !strings.Contains(err.Error(), "the header parameter x-unit is missing") {
		t.Error(err)
	}
	r.Header = map[string][]string{"x-unit": {"north"}}
	if _, err := d.Request(t.Context(), r); err == nil || !strings.Contains(err.Error(), "the header parameter x-unit") {
		t.Error(err)
	}
}

func TestAnswers(t *testing.T) {
	d := compiled(t, persons)
	for _, c := range []struct {
		method, path string
		status       int
		contentType  string
		body, want   string
	}{
		{"GET", "/persons", 200, "application/json", `[{"name":"Ada"}]`, ""},
		{"GET", "/persons", 200, "application/json", `[{"nam":"Ada"}]`, "the body of the answer 200"},
		{"GET", "/persons", 200, "text/html", `<html>`, "content type"},
		{"GET", "/persons", 500, "application/problem+json", `{"title":"x"}`, ""},
		{"GET", "/persons", 500, "application/problem+json", `{}`, "the body of the answer 500"},
		{"HEAD", "/persons", 200, "text/html", ``, ""},
		{"POST", "/persons", 201, "text/html", `x`, ""},
		{"POST", "/persons", 200, "", ``, "no answer 200"},
		{"POST", "/persons", 503, "text/html", `x`, ""},
		{"POST", "/persons", 404, "text/html", `x`, "content type"},
		{"POST", "/persons", 404, "application/problem+json", `anything`, ""},
	} {
		r := request(c.method, c.path, "", "text/plain", "x")
		o, err := d.Request(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		a := &sdk.Answer{Status: c.status}
		a.ContentType, a.Format, a.Data = c.contentType, sdk.FormatOf(c.contentType), []byte(c.body)
		if err := o.Answer(t.Context(), c.method, a); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestOldDialect(t *testing.T) {
	d := compiled(t, `{"openapi":"3.0.3","info":{},"paths":{"/a":{"post":{"requestBody":{"content":{"application/json":{"schema":{"type":"object","properties":{
		"a":{"type":"string","nullable":true,"enum":["x"]},"b":{"type":"integer","minimum":1,"exclusiveMinimum":true},"c":{"type":"integer","maximum":5,"exclusiveMaximum":false}}}}}},"responses":{}}}}}`)
	for body, good := range map[string]bool{
		`{"a":null,"b":2,"c":5}`: true, `{"a":"x"}`: true, `{"a":"y"}`: false, `{"b":1}`: false, `{"c":6}`: false, `{"a":1}`: false,
	} {
		if _, err := d.Request(t.Context(), request("POST", "/a", "", "application/json", body)); (err == nil) != good {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestDocumentsThatAreRefused(t *testing.T) {
	op := func(fields string) string { return `{"openapi":"3.1.0","paths":{"/a":{"get":{` + fields + `}}}}` }
	many := &strings.Builder{}
	for i := range maxOperations + 1 {
		fmt.Fprintf(many, `"/%d":{"get":{}},`, i)
	}
	for text, want := range map[string]string{
		`{`:                                      "not JSON",
		`[]`:                                     "not a JSON object",
		`{"swagger":"2.0"}`:                      `openapi is ""`,
		`{"openapi":"3.1.0"}`:                    "no paths",
		`{"openapi":"3.1.0","paths":{}}`:         "no paths",
		`{"openapi":"3.1.0","paths":{"a":{}}}`:   "at /paths/a: a path begins with /",
		`{"openapi":"3.1.0","paths":{"/{a":{}}}`: "braces",
		`{"openapi":"3.1.0","paths":{"/a":{"get":1}}}`:                                            "at /paths/~1a/get: an operation is an object",
		`{"openapi":"3.1.0","paths":{"/a":{"$ref":"other.json"}}}`:                                "leads out of the document",
		`{"openapi":"3.1.0","paths":{"/a":{"$ref":"#/paths/~1a"}}}`:                               "circle",
		op(`"parameters":[{"in":"query"}]`):                                                       "at /paths/~1a/get/parameters/0: a parameter has a name",
		op(`"parameters":[{"name":"x","in":"body"}]`):                                             `not in "body"`,
		op(`"parameters":[{"name":"x","in":"query","schema":{"type":"strin"}}]`):                  "at /paths/~1a/get/parameters/0/schema",
		op(`"parameters":[{"name":"x","in":"query","schema":{"$ref":"#/components/schemas/X"}}]`): "leads nowhere",
		op(`"parameters":[{"name":"x","in":"query","schema":{"$ref":"#/paths"}}]`):                "schemas refer to #/components/schemas/",
		op(`"requestBody":{"content":{"application/json":{"schema":{"minLength":-1}}}}`):          "at /paths/~1a/get/requestBody/content/application~1json/schema",
		`{"openapi":"3.1.0","paths":{` + strings.TrimSuffix(many.String(), ",") + `}}`:            "more than 500 operations",
		`{"openapi":"3.1.0","x":"` + strings.Repeat("x", MaxSize) + `"}`:                          "at most 256 KiB",
	} {
		if _, err := Compile(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.100s: %v, want %s", text, err, want)
		}
	}
}

// FuzzCompile: no document, and no request of it, stops the program.
func FuzzCompile(f *testing.F) {
	f.Add(persons, "/persons/17", "limit=5&tag=1", `{"name":"x"}`)
	f.Add(`{"openapi":"3.0.0","paths":{"/{a}{b}":{"get":{"parameters":[{"name":"a","in":"path","schema":{"type":["integer","null"]}}]}}}}`, "/x", "", "")
	f.Fuzz(func(t *testing.T, text, path, query, body string) {
		d, err := Compile(text)
		if err != nil {
			return
		}
		for _, method := range methods {
			r := request(method, path, query, "application/json", body)
			if r.Check() != nil {
				return
			}
			o, err := d.Request(t.Context(), r)
			var refused *sdk.CallError
			if err != nil && !errors.As(err, &refused) {
				t.Fatal(err)
			}
			if o != nil {
				a := &sdk.Answer{Status: 200}
				a.ContentType, a.Data = "application/json", []byte(body)
				_ = o.Answer(t.Context(), method, a)
			}
		}
	})
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, err := Compile(persons); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRequest(b *testing.B) {
	d, err := Compile(persons)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Request(b.Context(), request("GET", "/persons", "limit=5&tag=1", "", "")); err != nil {
			b.Fatal(err)
		}
	}
}
