package soap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/uuid"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/oneline"
)

// service calls a system for its callers.
type service struct {
	*endpoint
	form *form
}

// NewService makes a service of the JSON of the API's SOAPService.
func NewService(rt sdk.Runtime, raw json.RawMessage) (sdk.Service, error) {
	var o serviceOptions
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	e, err := newEndpoint(rt, o.endpointOptions, o.Security)
	if err != nil {
		return nil, err
	}
	f, err := newForm(o.Call, o.URL)
	if err != nil {
		return nil, err
	}
	return &service{e, f}, nil
}

// Call implements sdk.Service. The answer is in the format of the request.
func (s *service) Call(ctx context.Context, r *sdk.Request) (*sdk.Answer, error) {
	// The engine has checked it; none of it is sent but the body, and what the action says of it.
	if err := r.Check(); err != nil {
		return nil, &sdk.CallError{Status: http.StatusBadRequest, Err: err}
	}
	a, err := s.post(ctx, s.form, &r.Message, uuid.NewString(), nil, r.Reserve)
	var body errBody
	if errors.As(err, &body) {
		return nil, sdk.CallErrorf(http.StatusBadRequest, "the request makes no SOAP: %w", err)
	}
	if err != nil {
		return nil, err
	}
	e, err := open(a)
	switch {
	case err == nil && e != nil && e.fault != nil:
		return s.fault(e.fault)
	case err != nil && a.Status/100 == 2:
		return nil, sdk.CallErrorf(http.StatusBadGateway, "the system's answer: %s", oneline.Excerpt(err.Error(), 200))
	case a.Status/100 != 2:
		return nil, sdk.CallErrorf(statusOf(a.Status), "the system answered %d %s", a.Status, http.StatusText(a.Status))
	}
	answer := &sdk.Answer{Status: http.StatusOK}
	if e == nil || e.payload == nil {
		answer.Status = http.StatusNoContent
		return answer, nil
	}
	answer.Data, answer.ContentType, answer.Format = e.payload, "application/xml", sdk.FormatXML
	if r.Format == sdk.FormatJSON {
		if answer.Data, err = s.form.toJSON(e.payload); err != nil {
			return nil, sdk.CallErrorf(http.StatusBadGateway, "the system's answer: %w", err)
		}
		answer.ContentType, answer.Format = "application/json", sdk.FormatJSON
	}
	return answer, nil
}

// statusOf a call whose system answered without SOAP.
func statusOf(status int) int {
	if status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout {
		return status
	}
	return http.StatusBadGateway
}

// faultBody is a problem (RFC 9457) with the fault in it.
type faultBody struct {
	Type   string      `json:"type"`
	Title  string      `json:"title"`
	Status int         `json:"status"`
	Detail string      `json:"detail"`
	Hop    string      `json:"hop"`
	Fault  faultMember `json:"fault"`
}

type faultMember struct {
	Code   string          `json:"code"`
	Reason string          `json:"reason"`
	Detail json.RawMessage `json:"detail,omitempty"`
}

// fault is an answer: of the caller's doing 400, else 502.
func (s *service) fault(f *fault) (*sdk.Answer, error) {
	status := http.StatusBadGateway
	switch f.blame() {
	case blameCredentials:
		return nil, sdk.Unavailable(contract.ReasonAuthenticationFailed, fmt.Errorf("POST %s: %s", s.url, s.redact(f.Error())))
	case blameSender:
		status = http.StatusBadRequest
	}
	hop := s.rt.Config.Connector
	body := faultBody{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: s.redact(f.Error()), Hop: hop.Namespace + "/" + hop.Name,
		Fault: faultMember{Code: f.codes(), Reason: s.redact(f.reason)},
	}
	if len(f.detail) > 0 {
		if detail, err := s.form.toJSON(append(append([]byte("<detail>"), f.detail...), "</detail>"...)); err == nil {
			var one map[string]json.RawMessage
			if json.Unmarshal([]byte(s.redact(string(detail))), &one) == nil {
				body.Fault.Detail = one["detail"]
			}
		}
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	a := &sdk.Answer{Status: status, CacheFor: -1}
	a.Data, a.ContentType, a.Format = text, "application/problem+json", sdk.FormatJSON
	return a, nil
}
