package sdk

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Service is a function that a system offers, called by request and reply.
type Service interface {
	// Call makes one call and waits for the answer, until ctx ends at the latest: then the caller's time is up, or it has given up. It is
	// called concurrently. An answer of the system is an answer whatever its status. An error means that there is none:
	//
	//   - a *CallError has a text that the caller may read;
	//   - Unavailable: the system does not work; the engine refuses further calls until Check, or another call, says otherwise. Of
	//     reason AuthenticationFailed, other calls go on;
	//   - everything else means that the call may or may not have been done.
	Call(ctx context.Context, r *Request) (*Answer, error)
	// Check is a sink's: whether the system can be reached, as far as that can be known without calling it. An *UnavailableError if not.
	Check(ctx context.Context) error
	// Close releases connections.
	Close() error
}

// CallError is an error of Service.Call whose text may be told to the caller, with its status in HTTP's numbers. The text holds no secret.
type CallError struct {
	Status int
	Err    error
}

func (e *CallError) Error() string { return e.Err.Error() }
func (e *CallError) Unwrap() error { return e.Err }

// CallErrorf makes a *CallError.
func CallErrorf(status int, format string, a ...any) error {
	return &CallError{status, fmt.Errorf(format, a...)}
}

// Caller answers requests through the Routes of a source whose exchange is RequestReply. It is safe for concurrent use.
type Caller interface {
	// Call picks the Route, runs its steps, calls its service and runs its steps on the answer. It always answers, at the latest when the
	// Route's time is up: with the system's answer, or with a problem that names the hop it comes from. When ctx ends, the
	// call is cancelled all the way down. The answer is to be closed.
	Call(ctx context.Context, r *Request) *Answer
	// MaxTimeout of any Route.
	MaxTimeout() time.Duration
}

// Request is a call on its way to a service.
type Request struct {
	// Message is what steps see of it. Its Headers are CloudEvents extensions and the trace context, and while it is exposed the rest of
	// the request as well.
	Message
	// Method in HTTP's terms.
	Method string
	// Path below the service's own, escaped; empty, or it begins with a slash. Query is escaped, without question mark.
	Path, Query string
	// Header of the request by lower-case name, without Content-Type, credentials, and what concerns one connection only.
	Header map[string][]string
	// Reserve room for n bytes of an answer before they are read, and wait for it. The engine takes it back once the answer has
	// been sent. It may be nil.
	Reserve func(ctx context.Context, n int) error

	exposed exposed
}

// Answer of a call.
type Answer struct {
	// Message is what steps see of it.
	Message
	// Status in HTTP's numbers, 200 to 599.
	Status int
	// Header as a Request's.
	Header map[string][]string
	// Hop is the Connector, as namespace/name, that answered instead of the system; empty for an answer of the system.
	Hop string
	// CacheFor is how long it may be kept, if the service has a cache: 0 for as long as that is configured, negative for never.
	CacheFor time.Duration
	// Free what the answer holds of the pod's room; nil for nothing.
	Free func()

	exposed exposed
}

// Close lets go of the answer: its Data is not used any more.
func (a *Answer) Close() {
	if a.Free != nil {
		a.Free()
		a.Free = nil
	}
}

// Names under which steps see what is no CloudEvents attribute, in Headers. A header of the request or answer is HeaderPrefix and its
// name in lower case, a parameter of the query QueryPrefix and its name.
const (
	NameMethod   = "method"
	NamePath     = "path"
	NameQuery    = "query"
	NameStatus   = "status"
	HeaderPrefix = "http-"
	QueryPrefix  = "query-"
)

// exposed remembers what Expose has put into Headers, so that Absorb takes back what steps have changed and no more.
type exposed struct {
	values map[string]string
	// null: the body is empty, and format is what it was said to be in.
	null   bool
	format string
}

// Expose puts method, path, query, its parameters and the headers into Headers, where steps read and change them. An
// empty body shows as null.
func (r *Request) Expose() {
	r.exposed.begin(&r.Message)
	for name, value := range map[string]string{NameMethod: r.Method, NamePath: r.Path, NameQuery: r.Query} {
		r.exposed.set(&r.Message, name, value)
	}
	if r.Query != "" {
		parameters, _ := url.ParseQuery(r.Query) // what is malformed is left out
		for name, values := range parameters {
			r.exposed.set(&r.Message, QueryPrefix+name, values[0])
		}
	}
	r.exposed.headers(&r.Message, r.Header)
}

// Absorb takes over what steps have made of the exposed request. A parameter of the query is changed by changing the query.
func (r *Request) Absorb() error {
	h := r.Headers
	r.Method, r.Path, r.Query = h[NameMethod], h[NamePath], h[NameQuery]
	r.Header = r.exposed.absorb(&r.Message, r.Header)
	for _, name := range []string{NameMethod, NamePath, NameQuery} {
		delete(h, name)
	}
	for name := range h {
		if strings.HasPrefix(name, QueryPrefix) {
			delete(h, name)
		}
	}
	return r.Check()
}

// Expose puts the status and the headers into Headers, where steps read and change them. An empty body shows as null.
func (a *Answer) Expose() {
	a.exposed.begin(&a.Message)
	a.exposed.set(&a.Message, NameStatus, strconv.Itoa(a.Status))
	a.exposed.headers(&a.Message, a.Header)
}

// Absorb takes over what steps have made of the exposed answer.
func (a *Answer) Absorb() error {
	status, err := strconv.Atoi(a.Headers[NameStatus])
	if err != nil {
		return fmt.Errorf("the status %.20q is not a number", a.Headers[NameStatus])
	}
	a.Status = status
	delete(a.Headers, NameStatus)
	a.Header = a.exposed.absorb(&a.Message, a.Header)
	return a.Check()
}

func (e *exposed) begin(m *Message) {
	if m.Headers == nil {
		m.Headers = map[string]string{}
	}
	e.values = map[string]string{}
	if e.null = len(m.Data) == 0; e.null {
		e.format, m.Format = m.Format, FormatJSON
		m.SetData([]byte("null"))
	}
}

func (e *exposed) set(m *Message, name, value string) {
	m.Headers[name], e.values[name] = value, value
}

func (e *exposed) headers(m *Message, header map[string][]string) {
	for name, values := range header {
		e.set(m, HeaderPrefix+name, strings.Join(values, ", "))
	}
}

// absorb the headers: those that steps left alone keep all their values.
func (e *exposed) absorb(m *Message, header map[string][]string) map[string][]string {
	for name := range header {
		if _, kept := m.Headers[HeaderPrefix+name]; !kept {
			delete(header, name)
		}
	}
	for key, value := range m.Headers {
		name, is := strings.CutPrefix(key, HeaderPrefix)
		if !is {
			continue
		}
		delete(m.Headers, key)
		if old, had := e.values[key]; had && old == value {
			continue
		}
		if header == nil {
			header = map[string][]string{}
		}
		header[strings.ToLower(name)] = []string{value}
	}
	if e.null && string(m.Data) == "null" {
		m.SetData(nil)
		m.Format = e.format
	}
	return header
}

// Check what a request may not say, whoever made it: a method that is none, a path that leads elsewhere, anything that would break
// a header apart.
func (r *Request) Check() error {
	if !isToken(r.Method) || len(r.Method) > 32 {
		return fmt.Errorf("the method %.40q is none", r.Method)
	}
	if err := checkPath(r.Path); err != nil {
		return err
	}
	for i := 0; i < len(r.Query); i++ {
		if c := r.Query[i]; c <= ' ' || c > '~' || c == '#' {
			return errors.New("the query holds characters that must be percent-encoded")
		}
	}
	return checkHeader(r.Header)
}

// Check what an answer may not say.
func (a *Answer) Check() error {
	if a.Status < 200 || a.Status > 599 {
		return fmt.Errorf("the status %d is not between 200 and 599", a.Status)
	}
	return checkHeader(a.Header)
}

func checkPath(path string) error {
	if path == "" {
		return nil
	}
	if path[0] != '/' {
		return errors.New("the path does not begin with /")
	}
	for i := 0; i < len(path); i++ {
		if c := path[i]; c <= ' ' || c > '~' || c == '?' || c == '#' || c == '\\' {
			return errors.New("the path holds characters that must be percent-encoded")
		}
	}
	plain := path
	if strings.IndexByte(path, '%') >= 0 {
		var err error
		if plain, err = url.PathUnescape(path); err != nil {
			return errors.New("the path is not percent-encoded as it should be")
		}
	}
	for i := 0; i < len(plain); i++ {
		if c := plain[i]; c < ' ' || c == 0x7f {
			return errors.New("the path holds control characters")
		}
	}
	for segment := range strings.FieldsFuncSeq(plain, func(r rune) bool { return r == '/' || r == '\\' }) {
		// Some servers take what follows a semicolon for a parameter.
		if segment, _, _ = strings.Cut(segment, ";"); segment == "." || segment == ".." {
			return fmt.Errorf("the path has the segment %q, which would lead elsewhere", segment)
		}
	}
	return nil
}

func checkHeader(header map[string][]string) error {
	for name, values := range header {
		if !isToken(name) || len(name) > 128 {
			return fmt.Errorf("the header %.40q has a name that is none", name)
		}
		if slices.ContainsFunc(values, func(v string) bool {
			return strings.IndexFunc(v, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) >= 0
		}) {
			return fmt.Errorf("the header %s holds control characters", name)
		}
	}
	return nil
}

// isToken of HTTP (RFC 9110).
func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// FormatOf a body by its content type: JSON, XML, Text for text/*, else Binary. A body without a content type is Binary.
func FormatOf(contentType string) string {
	media, _, _ := strings.Cut(contentType, ";")
	switch media = strings.ToLower(strings.TrimSpace(media)); {
	case strings.HasSuffix(media, "/json"), strings.HasSuffix(media, "+json"):
		return FormatJSON
	case strings.HasSuffix(media, "/xml"), strings.HasSuffix(media, "+xml"):
		return FormatXML
	case strings.HasPrefix(media, "text/"):
		return FormatText
	default:
		return FormatBinary
	}
}
