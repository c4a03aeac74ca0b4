package stomp

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/cluster"
)

const (
	maxPrefetch     = 4096
	defaultPrefetch = 256
	maxDestination  = 1024
)

// connectionOptions are the JSON of the API's STOMPConnection.
type connectionOptions struct {
	// Servers of one cluster: stomp+ssl://host:port, or stomp://host:port.
	Servers     []string          `json:"servers"`
	VirtualHost string            `json:"virtualHost"`
	Heartbeat   contract.Duration `json:"heartbeat"`
}

var schemes = cluster.Schemes{Plain: "stomp", PlainPort: "61613", Secure: "stomp+ssl", SecurePort: "61614"}

func (o *connectionOptions) parse() (servers []cluster.Server, secure bool, err error) {
	if o.Heartbeat, err = cluster.Heartbeat(o.Heartbeat); err != nil {
		return nil, false, err
	}
	if strings.ContainsAny(o.VirtualHost, "\r\n") {
		return nil, false, errors.New("connection: virtualHost has a line end")
	}
	return schemes.Parse(o.Servers)
}

// What identifies a message that says no id (sourceOptions.Identity).
const (
	identityDelivery = "Delivery"
	identityContent  = "Content"
)

// sourceOptions are the JSON of the API's STOMPSource.
type sourceOptions struct {
	Connection  connectionOptions `json:"connection"`
	Destination string            `json:"destination"`
	Selector    string            `json:"selector"`
	Prefetch    int               `json:"prefetch"`
	Identity    string            `json:"identity"`
	DeadLetter  string            `json:"deadLetter"`
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
	case o.Destination == "" || len(o.Destination) > maxDestination || len(o.DeadLetter) > maxDestination:
		return o, fmt.Errorf("destination is missing, or a destination is longer than %d bytes", maxDestination)
	case o.DeadLetter == o.Destination:
		return o, errors.New("deadLetter: it is the queue that is read")
	case o.Prefetch < 1 || o.Prefetch > maxPrefetch:
		return o, fmt.Errorf("prefetch must be between 1 and %d", maxPrefetch)
	case o.Identity != identityDelivery && o.Identity != identityContent:
		return o, fmt.Errorf("identity %q is not one of Delivery and Content", o.Identity)
	}
	return o, nil
}

// Bodies of messages that are sent.
const (
	bodyAuto  = "Auto"
	bodyBytes = "Bytes"
)

// sinkOptions are the JSON of the API's STOMPSink.
type sinkOptions struct {
	Connection connectionOptions `json:"connection"`
	Send       json.RawMessage   `json:"send"`
}

// sendOptions are the JSON of the API's STOMPSend, the operation.
type sendOptions struct {
	Destination string            `json:"destination"`
	Headers     map[string]string `json:"headers"`
	Body        string            `json:"body"`
	Transient   bool              `json:"transient"`
	Expiration  contract.Duration `json:"expiration"`
	Priority    *int              `json:"priority"`
}

func decodeSend(raw json.RawMessage) (o sendOptions, err error) {
	if err = sdk.DecodeOptions(raw, &o); err != nil {
		return o, err
	}
	switch {
	case o.Destination == "":
		return o, errors.New("send: destination is missing")
	case o.Body != "" && o.Body != bodyAuto && o.Body != bodyBytes:
		return o, fmt.Errorf("send: body %q is neither Auto nor Bytes", o.Body)
	case o.Priority != nil && (*o.Priority < 0 || *o.Priority > 9):
		return o, errors.New("send: priority must be between 0 and 9")
	case o.Expiration < 0:
		return o, errors.New("send: expiration must not be negative")
	}
	for name := range o.Headers {
		if reserved(name) {
			return o, fmt.Errorf("send: the header %q is set by the connector", name)
		}
	}
	return o, nil
}

// reserved headers are the protocol's, or what the connector itself says.
func reserved(name string) bool {
	switch name {
	case "", hdrDestination, hdrContentType, hdrContentLength, hdrReceipt, hdrMessageID, hdrSubscription, hdrAck, hdrID, hdrTransaction, "persistent", "expires", "priority",
		contract.HeaderTraceParent, contract.HeaderTraceState:
		return true
	}
	return strings.HasPrefix(name, eventPrefix) || strings.HasPrefix(strings.ToLower(name), "cloudevents")
}
