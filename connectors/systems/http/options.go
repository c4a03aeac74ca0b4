package http

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/quantity"
)

// sourceOptions are the JSON of the API's HTTPSource.
type sourceOptions struct {
	Path        string             `json:"path"`
	MaxBodySize *quantity.Quantity `json:"maxBodySize"`
	AllowFrom   json.RawMessage    `json:"allowFrom"` // the operator's: it becomes a NetworkPolicy
	// Exchange is OneWay (a request becomes a message, and the answer is 202) or RequestReply (a Route's service answers; Path is
	// then a prefix, and every method is taken). Empty means OneWay.
	Exchange string `json:"exchange"`
}

// The exchanges.
const (
	exchangeOneWay       = "OneWay"
	exchangeRequestReply = "RequestReply"
)

const defaultMaxBodySize = 1 << 20

func decodeSourceOptions(raw json.RawMessage) (path string, maxBody int64, exchange string, err error) {
	var o sourceOptions
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return "", 0, "", err
	}
	path, maxBody, exchange = o.Path, defaultMaxBodySize, o.Exchange
	if path == "" {
		path = "/"
	}
	if path[0] != '/' {
		return "", 0, "", fmt.Errorf("path %q must begin with /", path)
	}
	if o.MaxBodySize != nil {
		maxBody = int64(*o.MaxBodySize)
	}
	if maxBody < 1 || maxBody > contract.MaxClaimSize {
		return "", 0, "", fmt.Errorf("maxBodySize must be between 1 and %d bytes", contract.MaxClaimSize)
	}
	switch exchange {
	case "":
		exchange = exchangeOneWay
	case exchangeOneWay, exchangeRequestReply:
	default:
		return "", 0, "", fmt.Errorf("exchange %q is neither %s nor %s", exchange, exchangeOneWay, exchangeRequestReply)
	}
	if exchange == exchangeRequestReply && maxBody > contract.MaxMessageSize {
		return "", 0, "", fmt.Errorf("a request that is answered is at most %d bytes: lower maxBodySize", contract.MaxMessageSize)
	}
	return path, maxBody, exchange, nil
}

// sinkOptions are the JSON of the API's HTTPSink.
type sinkOptions struct {
	URL     string          `json:"url"`
	Request json.RawMessage `json:"request"`
}

// requestOptions are the JSON of the API's HTTPRequest.
type requestOptions struct {
	Method   string            `json:"method"`
	Path     string            `json:"path"`
	Headers  map[string]string `json:"headers"`
	RetryOn  []int             `json:"retryOn"`
	RejectOn []int             `json:"rejectOn"`
}

func decodeSinkOptions(raw json.RawMessage) (*url.URL, json.RawMessage, error) {
	var o sinkOptions
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, nil, err
	}
	base, err := parseBase(o.URL)
	return base, o.Request, err
}

func parseBase(text string) (*url.URL, error) {
	base, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	if (base.Scheme != "http" && base.Scheme != "https") || base.Hostname() == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, errors.New("url must be http:// or https://, a host and at most a path")
	}
	return base, nil
}

// serviceOptions are the JSON of the API's HTTPService. Credentials and TLS are the Connector's, as a sink's are.
type serviceOptions struct {
	// URL of the system: scheme, host, and a path prefix that the path of each request is added to.
	URL string `json:"url"`
	// HealthPath is asked for by GET, with the Connector's credentials, to know whether the system works: 2xx and 3xx say so. It is
	// added to the host, not to the url's path. Empty means that connecting is enough.
	HealthPath string `json:"healthPath"`
	// Headers that every request gets, instead of what the caller sent under these names. Their values are sent as they are.
	Headers map[string]string `json:"headers"`
}

func decodeServiceOptions(raw json.RawMessage) (o serviceOptions, base *url.URL, err error) {
	if err = sdk.DecodeOptions(raw, &o); err != nil {
		return o, nil, err
	}
	if base, err = parseBase(o.URL); err != nil {
		return o, nil, err
	}
	if o.HealthPath != "" && o.HealthPath[0] != '/' {
		return o, nil, errors.New("healthPath must begin with /")
	}
	for name, value := range o.Headers {
		switch key := strings.ToLower(name); {
		case !headerName(key) || connectionHeaders[key] || key == "host" || key == "authorization":
			return o, nil, fmt.Errorf("headers: %q cannot be set", name)
		case checkAttribute(value) != nil:
			return o, nil, fmt.Errorf("headers: the value of %s holds control characters", name)
		}
	}
	return o, base, nil
}
