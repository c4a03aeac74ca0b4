package rabbitmq

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/cluster"
)

const (
	maxPrefetch     = 4096
	defaultPrefetch = 256
	// maxShort is the longest name, key or id that the protocol carries, in bytes.
	maxShort = 255
)

// connectionOptions are the JSON of the API's RabbitMQConnection.
type connectionOptions struct {
	// Servers of one cluster: amqps://host:port, or amqp://host:port.
	Servers     []string          `json:"servers"`
	VirtualHost string            `json:"virtualHost"`
	Heartbeat   contract.Duration `json:"heartbeat"`
}

var schemes = cluster.Schemes{Plain: "amqp", PlainPort: "5672", Secure: "amqps", SecurePort: "5671"}

func (o *connectionOptions) parse() (servers []cluster.Server, secure bool, err error) {
	if o.VirtualHost == "" {
		o.VirtualHost = "/"
	}
	if len(o.VirtualHost) > maxShort {
		return nil, false, fmt.Errorf("connection: virtualHost is longer than %d bytes", maxShort)
	}
	if o.Heartbeat, err = cluster.Heartbeat(o.Heartbeat); err != nil {
		return nil, false, err
	}
	servers, secure, err = schemes.Parse(o.Servers)
	for i := range servers {
		servers[i].Endpoint += "/" + url.PathEscape(o.VirtualHost)
	}
	return servers, secure, err
}

// What identifies a message that says no id (sourceOptions.Identity).
const (
	identityDelivery = "Delivery"
	identityContent  = "Content"
)

// sourceOptions are the JSON of the API's RabbitMQSource.
type sourceOptions struct {
	Connection connectionOptions  `json:"connection"`
	Queue      string             `json:"queue"`
	Prefetch   int                `json:"prefetch"`
	Identity   string             `json:"identity"`
	DeadLetter *deadLetterOptions `json:"deadLetter"`
}

type deadLetterOptions struct {
	Exchange   string `json:"exchange"`
	RoutingKey string `json:"routingKey"`
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
	case o.Queue == "" || len(o.Queue) > maxShort:
		return o, fmt.Errorf("queue is missing, or longer than %d bytes", maxShort)
	case o.Prefetch < 1 || o.Prefetch > maxPrefetch:
		return o, fmt.Errorf("prefetch must be between 1 and %d", maxPrefetch)
	case o.Identity != identityDelivery && o.Identity != identityContent:
		return o, fmt.Errorf("identity %q is not one of Delivery and Content", o.Identity)
	}
	if d := o.DeadLetter; d != nil {
		switch {
		case len(d.Exchange) > maxShort || len(d.RoutingKey) > maxShort:
			return o, fmt.Errorf("deadLetter: a name is longer than %d bytes", maxShort)
		case d.Exchange == "" && d.RoutingKey == "":
			return o, errors.New("deadLetter: set exchange, routingKey or both")
		case d.Exchange == "" && d.RoutingKey == o.Queue:
			return o, errors.New("deadLetter: it is the queue that is read")
		}
	}
	return o, nil
}

// What becomes of a message that no queue takes (publishOptions.Unroutable).
const (
	unroutableDeadLetter = "DeadLetter"
	unroutableRetry      = "Retry"
	unroutableIgnore     = "Ignore"
)

// sinkOptions are the JSON of the API's RabbitMQSink.
type sinkOptions struct {
	Connection connectionOptions `json:"connection"`
	Publish    json.RawMessage   `json:"publish"`
}

// publishOptions are the JSON of the API's RabbitMQPublish, the operation.
type publishOptions struct {
	Exchange   string            `json:"exchange"`
	RoutingKey string            `json:"routingKey"`
	Headers    map[string]string `json:"headers"`
	Unroutable string            `json:"unroutable"`
	Transient  bool              `json:"transient"`
	Priority   *int              `json:"priority"`
	Expiration contract.Duration `json:"expiration"`
}

func decodePublish(raw json.RawMessage) (o publishOptions, err error) {
	if len(raw) == 0 {
		return o, errors.New("publish is missing")
	}
	if err = sdk.DecodeOptions(raw, &o); err != nil {
		return o, err
	}
	if o.Unroutable == "" {
		o.Unroutable = unroutableDeadLetter
	}
	switch {
	case o.Exchange == "" && o.RoutingKey == "":
		return o, errors.New("publish: set exchange, routingKey or both")
	case len(o.Exchange) > maxShort:
		return o, fmt.Errorf("publish: exchange is longer than %d bytes", maxShort)
	case o.Unroutable != unroutableDeadLetter && o.Unroutable != unroutableRetry && o.Unroutable != unroutableIgnore:
		return o, fmt.Errorf("publish: unroutable %q is not one of DeadLetter, Retry and Ignore", o.Unroutable)
	case o.Priority != nil && (*o.Priority < 0 || *o.Priority > 255):
		return o, errors.New("publish: priority must be between 0 and 255")
	case o.Expiration < 0:
		return o, errors.New("publish: expiration is negative")
	}
	for name := range o.Headers {
		if err := headerName(name); err != nil {
			return o, fmt.Errorf("publish: %w", err)
		}
	}
	return o, nil
}

// headerName refuses what the connector sets itself, and what the server keeps for itself.
func headerName(name string) error {
	switch lower := strings.ToLower(name); {
	case name == "" || len(name) > 128:
		return fmt.Errorf("header %.40q: a name is 1 to 128 bytes", name)
	case strings.HasPrefix(lower, "cloudevents"), strings.HasPrefix(lower, "metip-"), lower == contract.HeaderTraceParent, lower == contract.HeaderTraceState:
		return fmt.Errorf("header %q is set by the connector", name)
	case lower == "cc" || lower == "bcc":
		return fmt.Errorf("header %q sends copies elsewhere: bind the exchange to further queues instead", name)
	}
	return nil
}

// serviceOptions are the JSON of the API's RabbitMQService.
type serviceOptions struct {
	Connection  connectionOptions `json:"connection"`
	Exchange    string            `json:"exchange"`
	RoutingKey  string            `json:"routingKey"`
	ContentType string            `json:"contentType"`
}

func decodeService(raw json.RawMessage) (o serviceOptions, err error) {
	if err = sdk.DecodeOptions(raw, &o); err != nil {
		return o, err
	}
	if o.ContentType == "" {
		o.ContentType = "application/json"
	}
	switch {
	case o.Exchange == "" && o.RoutingKey == "":
		return o, errors.New("set exchange, routingKey or both")
	case len(o.Exchange) > maxShort:
		return o, fmt.Errorf("exchange is longer than %d bytes", maxShort)
	}
	return o, nil
}
