package sdk

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestRequestAsStepsSeeIt(t *testing.T) {
	r := &Request{
		Method: "GET", Path: "/a%2Fb", Query: "name=a%20b&x=1&x=2&%zz",
		Header: map[string][]string{"accept": {"a", "b"}, "x-gone": {"1"}, "x-changed": {"1", "2"}},
	}
	r.Format, r.Headers = FormatText, map[string]string{"traceparent": "t"}
	r.Expose()
	want := map[string]string{
		"traceparent": "t", "method": "GET", "path": "/a%2Fb", "query": "name=a%20b&x=1&x=2&%zz", "query-name": "a b", "query-x": "1",
		"http-accept": "a, b", "http-x-gone": "1", "http-x-changed": "1, 2",
	}
	if diff := cmp.Diff(want, r.Headers); diff != "" {
		t.Error(diff)
	}
	if v, err := r.Body(); v != nil || err != nil {
		t.Error("an empty body shows as null:", v, err)
	}
	delete(r.Headers, "http-x-gone")
	maps.Copy(r.Headers, map[string]string{"path": "/c", "query": "", "http-x-changed": "3", "http-X-New": "4", "unit": "7"})
	if err := r.Absorb(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string][]string{"accept": {"a", "b"}, "x-changed": {"3"}, "x-new": {"4"}}, r.Header); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"traceparent": "t", "unit": "7"}, r.Headers); diff != "" {
		t.Error(diff)
	}
	if r.Method != http.MethodGet || r.Path != "/c" || r.Query != "" || len(r.Data) != 0 || r.Format != FormatText {
		t.Errorf("%+v", r)
	}
	// A step that makes a body of none.
	r.Expose()
	r.SetData([]byte("{}"))
	if err := r.Absorb(); err != nil || string(r.Data) != "{}" || r.Format != FormatJSON {
		t.Errorf("%s %s %v", r.Format, r.Data, err)
	}
	r.Expose()
	r.Headers["path"] = "/../x"
	if r.Absorb() == nil {
		t.Error("a step may lead elsewhere")
	}
}

func TestAnswerAsStepsSeeIt(t *testing.T) {
	a := &Answer{Status: 404, Header: map[string][]string{"etag": {"x"}}}
	a.Expose()
	if diff := cmp.Diff(map[string]string{"status": "404", "http-etag": "x"}, a.Headers); diff != "" {
		t.Error(diff)
	}
	a.Headers["status"] = "200"
	if err := a.Absorb(); err != nil || a.Status != 200 || a.Header["etag"][0] != "x" || len(a.Headers) != 0 {
		t.Errorf("%+v %v", a, err)
	}
	for _, status := range []string{"", "x", "99", "600", "1e3"} {
		a.Expose()
		a.Headers["status"] = status
		if a.Absorb() == nil {
			t.Errorf("status %q is taken", status)
		}
	}
}

// FuzzRequestCheck: no path that is let pass leads above where it begins, however it is decoded once, and no header breaks apart.
func FuzzRequestCheck(f *testing.F) {
	for _, path := range []string{"", "/", "/a/../b", "/%2e%2e/", "/..%2f", "/a%5c..%5cb", "/..;x/a", "//a", "/a?b", "/\u00e9"} {
		f.Add("GET", path, "a=b", "x", "y")
	}
	f.Fuzz(func(t *testing.T, method, path, query, name, value string) {
		r := &Request{Method: method, Path: path, Query: query, Header: map[string][]string{name: {value}}}
		if r.Check() != nil {
			return
		}
		plain, err := url.PathUnescape(path)
		if err != nil || path != "" && path[0] != '/' || slices.Contains(strings.FieldsFunc(plain, func(c rune) bool { return c == '/' || c == '\\' }), "..") {
			t.Fatalf("%q", path)
		}
		if strings.ContainsAny(method+name, " \r\n:") || strings.ContainsAny(value+query+path, "\r\n\x00") {
			t.Fatalf("%q %q %q %q", method, name, value, query)
		}
		u, err := url.Parse("http://host/api" + path + "?" + query)
		if err != nil || u.Host != "host" || u.User != nil || u.Fragment != "" {
			t.Fatalf("%q: %v", path, err)
		}
		before := *r
		before.Header = maps.Clone(r.Header)
		r.Expose()
		if err := r.Absorb(); err != nil {
			t.Fatal(err)
		}
		if name == strings.ToLower(name) {
			if diff := cmp.Diff(&before, r, cmpopts.IgnoreUnexported(Request{}, Message{}), cmpopts.EquateEmpty()); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

func TestFormatOf(t *testing.T) {
	for contentType, want := range map[string]string{
		"application/json": FormatJSON, "Application/Problem+JSON; charset=utf-8": FormatJSON, "text/xml": FormatXML, "application/soap+xml": FormatXML, "text/html; charset=x": FormatText,
		"": FormatBinary, "image/png": FormatBinary, "json": FormatBinary,
	} {
		if got := FormatOf(contentType); got != want {
			t.Errorf("%s: %s", contentType, got)
		}
	}
}
