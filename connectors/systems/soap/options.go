package soap

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/metip/metip/connectors/codec"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

// sourceOptions are the JSON of the API's SOAPSource.
type sourceOptions struct {
	Path        string          `json:"path,omitempty"`
	Exchange    string          `json:"exchange,omitempty"`
	MaxBodySize json.RawMessage `json:"maxBodySize,omitempty"`
	AllowFrom   json.RawMessage `json:"allowFrom,omitempty"` // the operator's: it becomes a NetworkPolicy
	WSDL        *wsdlOptions    `json:"wsdl,omitempty"`
	Security    string          `json:"security,omitempty"`
	Response    string          `json:"response,omitempty"`
	mappingOptions
}

// wsdlOptions are the JSON of the API's WSDL.
type wsdlOptions struct {
	Inline  string `json:"inline"`
	Address string `json:"address"`
}

// httpSourceOptions are what package http is to know of them.
type httpSourceOptions struct {
	Path        string          `json:"path,omitempty"`
	Exchange    string          `json:"exchange,omitempty"`
	MaxBodySize json.RawMessage `json:"maxBodySize,omitempty"`
}

// endpointOptions are common to a sink and a service.
type endpointOptions struct {
	URL        string `json:"url"`
	HealthPath string `json:"healthPath,omitempty"`
}

// callOptions are the JSON of the API's SOAPCall: how a message becomes an envelope, and what faults mean.
type callOptions struct {
	Version    string   `json:"version"`
	Action     string   `json:"action"`
	Addressing string   `json:"addressing"`
	Content    string   `json:"content"`
	RetryOn    []string `json:"retryOn"`
	RejectOn   []string `json:"rejectOn"`
	mappingOptions
}

// sinkOptions are the JSON of the API's SOAPSink.
type sinkOptions struct {
	URL      string          `json:"url"`
	Security string          `json:"security"`
	Call     json.RawMessage `json:"call"`
}

// serviceOptions are the JSON of the API's SOAPService.
type serviceOptions struct {
	endpointOptions
	Security string          `json:"security"`
	Call     json.RawMessage `json:"call"`
}

// Addressing.
const (
	addressingNone = "None"
	addressingOn   = "Headers"
)

// Content of a message's body.
const (
	contentElement  = "Element"
	contentEnvelope = "Envelope"
)

// form of the envelopes of a call.
type form struct {
	*mapping
	version    version
	action     *steps.Template
	addressing bool
	// whole: messages are envelopes themselves.
	whole    bool
	to       string
	retryOn  []string
	rejectOn []string
}

func newForm(raw json.RawMessage, to string) (*form, error) {
	var o callOptions
	if len(raw) > 0 {
		if err := sdk.DecodeOptions(raw, &o); err != nil {
			return nil, err
		}
	}
	f := &form{to: to, retryOn: o.RetryOn, rejectOn: o.RejectOn}
	switch o.Version {
	case "", "1.1":
		f.version = version11
	case "1.2":
		f.version = version12
	default:
		return nil, fmt.Errorf("version %q is neither 1.1 nor 1.2", o.Version)
	}
	switch o.Addressing {
	case "", addressingNone:
	case addressingOn:
		f.addressing = true
	default:
		return nil, fmt.Errorf("addressing %q is neither %s nor %s", o.Addressing, addressingNone, addressingOn)
	}
	switch o.Content {
	case "", contentElement:
	case contentEnvelope:
		if f.addressing {
			return nil, fmt.Errorf("content %s: such an envelope has headers of its own; leave addressing out", contentEnvelope)
		}
		f.whole = true
	default:
		return nil, fmt.Errorf("content %q is neither %s nor %s", o.Content, contentElement, contentEnvelope)
	}
	var err error
	if f.mapping, err = newMapping(o.mappingOptions); err != nil {
		return nil, err
	}
	if f.action, err = steps.CompileTemplate(o.Action); err != nil {
		return nil, fmt.Errorf("action: %w", err)
	}
	return f, nil
}

func decodeSource(raw json.RawMessage) (o sourceOptions, err error) {
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return o, err
	}
	if o.WSDL != nil {
		if err := codec.CheckXML([]byte(o.WSDL.Inline)); err != nil {
			return o, fmt.Errorf("wsdl: %w", err)
		}
		if u, err := url.Parse(o.WSDL.Address); o.WSDL.Address != "" && (err != nil || u.Host == "") {
			return o, errors.New("wsdl: address is no URL")
		}
	}
	if o.Response != "" {
		if err := codec.CheckXML([]byte(o.Response)); err != nil {
			return o, fmt.Errorf("response: %w", err)
		}
		if strings.HasPrefix(strings.TrimSpace(o.Response), "<?") {
			return o, errors.New("response: it is an element, without XML declaration")
		}
	}
	return o, nil
}
