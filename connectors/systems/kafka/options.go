package kafka

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/metip/metip/connectors/sdk"
)

const (
	maxServers = 16
	maxTopics  = 64
)

// How the password is proved.
const (
	saslPlain    = "PLAIN"
	saslScram256 = "SCRAM-SHA-256"
	saslScram512 = "SCRAM-SHA-512"
)

// Where a group begins that has no offsets.
const (
	startBeginning = "Beginning"
	startNow       = "Now"
)

// connectionOptions are the JSON of the API's KafkaConnection.
type connectionOptions struct {
	// Servers to begin with: host:port.
	Servers    []string `json:"servers"`
	Encryption string   `json:"encryption"`
	SASL       string   `json:"sasl"`
}

func (o *connectionOptions) parse() (secure bool, err error) {
	if len(o.Servers) == 0 || len(o.Servers) > maxServers {
		return false, fmt.Errorf("connection: there must be 1 to %d servers", maxServers)
	}
	for i, s := range o.Servers {
		if !strings.Contains(strings.Trim(s, "[]"), ":") || strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
			o.Servers[i] = s + ":9092"
			continue
		}
		if host, _, err := net.SplitHostPort(s); err != nil || host == "" {
			return false, fmt.Errorf("connection: server %q is not host:port", s)
		}
	}
	switch o.SASL {
	case "":
		o.SASL = saslScram512
	case saslPlain, saslScram256, saslScram512:
	default:
		return false, fmt.Errorf("connection: sasl %q is not one of PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512", o.SASL)
	}
	switch o.Encryption {
	case "", "Required":
		return true, nil
	case "Disabled":
		return false, nil
	default:
		return false, fmt.Errorf("connection: encryption %q is neither Required nor Disabled", o.Encryption)
	}
}

// sourceOptions are the JSON of the API's KafkaSource.
type sourceOptions struct {
	Connection connectionOptions `json:"connection"`
	Topics     []string          `json:"topics"`
	Group      string            `json:"group"`
	Start      string            `json:"start"`
	DeadLetter string            `json:"deadLetter"`
}

// validTopic tells whether a name can be a topic's.
func validTopic(name string) bool {
	return name != "" && len(name) <= 249 && strings.IndexFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-'
	}) < 0
}

func decodeSource(raw json.RawMessage) (o sourceOptions, err error) {
	if err = sdk.DecodeOptions(raw, &o); err != nil {
		return o, err
	}
	if o.Start == "" {
		o.Start = startBeginning
	}
	switch {
	case len(o.Topics) == 0 || len(o.Topics) > maxTopics:
		return o, fmt.Errorf("there must be 1 to %d topics", maxTopics)
	case o.Start != startBeginning && o.Start != startNow:
		return o, fmt.Errorf("start %q is neither %s nor %s", o.Start, startBeginning, startNow)
	case o.DeadLetter != "" && !validTopic(o.DeadLetter):
		return o, fmt.Errorf("deadLetter %q is no topic", o.DeadLetter)
	}
	for _, topic := range o.Topics {
		if !validTopic(topic) || topic == o.DeadLetter {
			return o, fmt.Errorf("%q is no topic, or it is the one of deadLetter", topic)
		}
	}
	return o, nil
}

// Compressions of what is sent.
var compressions = map[string]bool{"": true, "None": true, "Gzip": true, "Snappy": true, "LZ4": true, "Zstd": true}

// sinkOptions are the JSON of the API's KafkaSink.
type sinkOptions struct {
	Connection  connectionOptions `json:"connection"`
	Compression string            `json:"compression"`
	Produce     json.RawMessage   `json:"produce"`
}

// produceOptions are the JSON of the API's KafkaProduce, the operation.
type produceOptions struct {
	Topic   string            `json:"topic"`
	Key     string            `json:"key"`
	Headers map[string]string `json:"headers"`
}

func decodeProduce(raw json.RawMessage) (o produceOptions, err error) {
	if len(raw) == 0 {
		return o, errors.New("produce is missing")
	}
	if err = sdk.DecodeOptions(raw, &o); err != nil {
		return o, err
	}
	switch {
	case o.Topic == "":
		return o, errors.New("produce: topic is missing")
	case !strings.Contains(o.Topic, "{") && !validTopic(o.Topic):
		return o, fmt.Errorf("produce: %q is no topic", o.Topic)
	}
	for name := range o.Headers {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, eventPrefix) || strings.HasPrefix(lower, "metip-") || lower == headerContentType {
			return o, fmt.Errorf("produce: header %q is set by the connector", name)
		}
	}
	return o, nil
}
