package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	client "github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

// headerError of an answer is that of NATS' own service framework: the number says what kind of error.
const headerError = "Nats-Service-Error-Code"

// service asks a subject of a NATS server.
type service struct {
	*link
	subject     *steps.Template
	contentType string
}

// NewService makes a service of the JSON of the API's NATSService.
func NewService(rt sdk.Runtime, options json.RawMessage) (sdk.Service, error) {
	o, subject, err := decodeServiceOptions(options)
	if err != nil {
		return nil, err
	}
	l, err := newLink(rt, o.connectionOptions)
	if err != nil {
		return nil, err
	}
	return &service{link: l, subject: subject, contentType: o.ContentType}, nil
}

// Call implements sdk.Service.
func (s *service) Call(ctx context.Context, r *sdk.Request) (*sdk.Answer, error) {
	if err := r.Check(); err != nil {
		return nil, &sdk.CallError{Status: http.StatusBadRequest, Err: err}
	}
	subject, err := s.subjectOf(r)
	if err != nil {
		return nil, &sdk.CallError{Status: http.StatusBadRequest, Err: fmt.Errorf("subject: %w", err)}
	}
	nc, err := s.conn(ctx)
	if err != nil {
		return nil, err
	}
	m := &client.Msg{Subject: subject, Header: headersOf(ctx, r), Data: r.Data}
	if limit := nc.MaxPayload(); int64(len(m.Data)) > limit {
		return nil, sdk.CallErrorf(http.StatusRequestEntityTooLarge, "the system takes bodies of up to %d bytes", limit)
	}
	got, err := nc.RequestMsgWithContext(ctx, m)
	switch {
	case errors.Is(err, client.ErrNoResponders):
		return nil, sdk.CallErrorf(http.StatusServiceUnavailable, "nobody at the system answers on the subject")
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil && !nc.IsConnected():
		return nil, s.unavailable(err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", s.servers, err)
	}
	return s.answer(ctx, r, got)
}

// subjectOf a request. A value that is inserted is one token: it cannot lead elsewhere.
func (s *service) subjectOf(r *sdk.Request) (string, error) {
	shown := *r
	shown.Headers = make(map[string]string, len(r.Headers)+8)
	for name, value := range r.Headers {
		shown.Headers[name] = value
	}
	shown.Expose()
	return expandSubject(s.subject, &shown.Message)
}

func headersOf(ctx context.Context, r *sdk.Request) client.Header {
	h := make(client.Header, len(r.Header)+8)
	for name, values := range r.Header {
		if !strings.HasPrefix(name, "nats-") {
			h[http.CanonicalHeaderKey(name)] = values
		}
	}
	set := func(name, value string) {
		if value != "" {
			h[name] = []string{value}
		}
	}
	set("Content-Type", r.ContentType)
	set("Metip-Method", r.Method)
	set("Metip-Path", r.Path)
	set("Metip-Query", r.Query)
	set("Traceparent", r.Headers[contract.HeaderTraceParent])
	set("Tracestate", r.Headers[contract.HeaderTraceState])
	if deadline, ok := ctx.Deadline(); ok {
		set("Metip-Timeout-Ms", strconv.FormatInt(max(1, time.Until(deadline).Milliseconds()), 10))
	}
	return h
}

func (s *service) answer(ctx context.Context, r *sdk.Request, got *client.Msg) (*sdk.Answer, error) {
	if len(got.Data) > contract.MaxMessageSize {
		return nil, sdk.CallErrorf(http.StatusBadGateway, "the system's answer is larger than %d bytes, which is the most that the bus carries", contract.MaxMessageSize)
	}
	if r.Reserve != nil {
		if err := r.Reserve(ctx, len(got.Data)); err != nil {
			return nil, err
		}
	}
	a := &sdk.Answer{Status: http.StatusOK, Header: make(map[string][]string, len(got.Header))}
	for name, values := range got.Header {
		switch lower := strings.ToLower(name); {
		case lower == "content-type":
			a.ContentType = values[0]
		case strings.EqualFold(name, headerError):
			status, err := strconv.Atoi(values[0])
			if err != nil || status < 400 || status > 599 {
				status = http.StatusInternalServerError
			}
			a.Status = status
		default:
			a.Header[lower] = values
		}
	}
	if a.ContentType == "" {
		a.ContentType = s.contentType
	}
	a.Format, a.Data = sdk.FormatOf(a.ContentType), got.Data
	return a, nil
}
