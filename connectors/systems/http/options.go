package http

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strings"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// sourceOptions are the JSON of the API's HTTPSource.
type sourceOptions struct {
	Path        string          `json:"path"`
	MaxBodySize *quantity       `json:"maxBodySize"`
	AllowFrom   json.RawMessage `json:"allowFrom"` // the operator's: it becomes a NetworkPolicy
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

// quantity is a Kubernetes quantity of bytes: 1048576, "1Mi", "1.5k", "1e6". Fractions of a byte are rounded up.
type quantity int64

var quantitySuffixes = []struct {
	suffix string
	factor int64
}{{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}}

// UnmarshalJSON reads a string or a number.
func (q *quantity) UnmarshalJSON(b []byte) error {
	text := strings.Trim(string(b), `"`)
	n, err := parseQuantity(text)
	if err != nil {
		return fmt.Errorf("quantity %q: %w", text, err)
	}
	*q = quantity(n)
	return nil
}

func parseQuantity(text string) (int64, error) {
	if len(text) > 32 {
		return 0, errors.New("too long")
	}
	factor := big.NewRat(1, 1)
	for _, s := range quantitySuffixes {
		if rest, ok := strings.CutSuffix(text, s.suffix); ok {
			text, factor = rest, big.NewRat(s.factor, 1)
			break
		}
	}
	if rest, ok := strings.CutSuffix(text, "m"); ok {
		text, factor = rest, big.NewRat(1, 1000)
	}
	if i := strings.IndexAny(text, "eE"); i >= 0 && len(text)-i > 4 {
		return 0, errors.New("the exponent is too large")
	}
	if strings.Trim(text, "+-0123456789.eE") != "" {
		return 0, errors.New("not a number with a suffix such as Ki or Mi")
	}
	n, ok := new(big.Rat).SetString(text)
	if !ok {
		return 0, errors.New("not a number")
	}
	n.Mul(n, factor)
	up := new(big.Int).Add(n.Num(), new(big.Int).Sub(n.Denom(), big.NewInt(1)))
	up.Div(up, n.Denom())
	if !up.IsInt64() {
		return 0, errors.New("out of range")
	}
	return up.Int64(), nil
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
