package amqp10

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/binding"
	"github.com/metip/metip/connectors/systems/internal/cluster"
)

const (
	maxPrefetch     = 4096
	defaultPrefetch = 256
	maxAddress      = 1024
	maxHostname     = 255
	// maxExpiration is what the protocol can say, in milliseconds of 32 bits, and a little less.
	maxExpiration = 1000 * time.Hour
)

// connectionOptions are the JSON of the API's AMQP10Connection.
type connectionOptions struct {
	// Servers of one cluster: amqps://host:port, or amqp://host:port.
	Servers   []string          `json:"servers"`
	Hostname  string            `json:"hostname"`
	Heartbeat contract.Duration `json:"heartbeat"`
}

var schemes = cluster.Schemes{Plain: "amqp", PlainPort: "5672", Secure: "amqps", SecurePort: "5671"}

func (o *connectionOptions) parse() (servers []cluster.Server, secure bool, err error) {
	if len(o.Hostname) > maxHostname || !binding.Clean(o.Hostname) {
		return nil, false, fmt.Errorf("connection: hostname is longer than %d bytes, or has control characters", maxHostname)
	}
	if o.Heartbeat, err = cluster.Heartbeat(o.Heartbeat); err != nil {
		return nil, false, err
	}
	return schemes.Parse(o.Servers)
}

// What identifies a message that says no id (sourceOptions.Identity).
const (
	identityDelivery = "Delivery"
	identityContent  = "Content"
)

// sourceOptions are the JSON of the API's AMQP10Source.
type sourceOptions struct {
	Connection connectionOptions `json:"connection"`
	Address    string            `json:"address"`
	Prefetch   int               `json:"prefetch"`
	Identity   string            `json:"identity"`
	DeadLetter string            `json:"deadLetter"`
	Reject     bool              `json:"reject"`
}

func decodeSource(raw json.RawMessage) (o sourceOptions, err error) {
	if err = sdk.DecodeOptions(raw, &o); err != nil {
		return o, err
	}
	if o.Prefetch == 0 {
		o.Prefetch = defaultPrefetch
	}
	if o.Identity == "" {
		o.Identity = identityDelivery
	}
	switch {
	case o.Address == "" || len(o.Address) > maxAddress || len(o.DeadLetter) > maxAddress:
		return o, fmt.Errorf("address is missing, or an address is longer than %d bytes", maxAddress)
	case o.DeadLetter == o.Address:
		return o, errors.New("deadLetter: it is the address that is read")
	case o.DeadLetter != "" && o.Reject:
		return o, errors.New("set deadLetter or reject, not both")
	case o.Prefetch < 1 || o.Prefetch > maxPrefetch:
		return o, fmt.Errorf("prefetch must be between 1 and %d", maxPrefetch)
	case o.Identity != identityDelivery && o.Identity != identityContent:
		return o, fmt.Errorf("identity %q is not one of Delivery and Content", o.Identity)
	}
	return o, nil
}

// Sections that bodies are sent in.
const (
	bodyData  = "Data"
	bodyValue = "Value"
)

// sinkOptions are the JSON of the API's AMQP10Sink.
type sinkOptions struct {
	Connection connectionOptions `json:"connection"`
	Send       json.RawMessage   `json:"send"`
}

// sendOptions are the JSON of the API's AMQP10Send, the operation.
type sendOptions struct {
	Address    string            `json:"address"`
	Subject    string            `json:"subject"`
	Properties map[string]string `json:"properties"`
	Body       string            `json:"body"`
	Grouped    bool              `json:"grouped"`
	Transient  bool              `json:"transient"`
	Expiration contract.Duration `json:"expiration"`
	Priority   *int              `json:"priority"`
}

func decodeSend(raw json.RawMessage) (o sendOptions, err error) {
	if len(raw) == 0 {
		return o, errors.New("send is missing")
	}
	if err = sdk.DecodeOptions(raw, &o); err != nil {
		return o, err
	}
	switch {
	case o.Address == "":
		return o, errors.New("send: address is missing")
	case o.Body != "" && o.Body != bodyData && o.Body != bodyValue:
		return o, fmt.Errorf("send: body %q is neither Data nor Value", o.Body)
	case o.Priority != nil && (*o.Priority < 0 || *o.Priority > 9):
		return o, errors.New("send: priority must be between 0 and 9")
	case o.Expiration < 0 || time.Duration(o.Expiration) > maxExpiration:
		return o, fmt.Errorf("send: expiration must be between 0 and %s", maxExpiration)
	}
	for name := range o.Properties {
		lower := strings.ToLower(name)
		switch {
		case name == "" || len(name) > 128:
			return o, fmt.Errorf("send: property %.40q: a name is 1 to 128 bytes", name)
		case strings.HasPrefix(lower, "cloudevents"), strings.HasPrefix(lower, "metip-"), lower == contract.HeaderTraceParent, lower == contract.HeaderTraceState:
			return o, fmt.Errorf("send: the property %q is set by the connector", name)
		}
	}
	return o, nil
}
