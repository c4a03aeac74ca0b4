package mqtt

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/binding"
)

const (
	maxServers       = 16
	maxTopics        = 32
	maxTopic         = 1024
	maxPrefetch      = 4096
	defaultPrefetch  = 256
	defaultKeepAlive = 30 * time.Second
	defaultExpiry    = 7 * 24 * time.Hour

	version311 = "3.1.1"
	version5   = "5"
)

// connectionOptions are the JSON of the API's MQTTConnection.
type connectionOptions struct {
	// Servers of one cluster: mqtts://host:port, or mqtt://host:port.
	Servers   []string          `json:"servers"`
	Version   string            `json:"version"`
	KeepAlive contract.Duration `json:"keepAlive"`
}

type server struct{ host, address, endpoint string }

func (o *connectionOptions) five() bool { return o.Version != version311 }

func (o *connectionOptions) parse() (servers []server, secure bool, err error) {
	if len(o.Servers) == 0 || len(o.Servers) > maxServers {
		return nil, false, fmt.Errorf("connection: there must be 1 to %d servers", maxServers)
	}
	if o.Version != "" && o.Version != version5 && o.Version != version311 {
		return nil, false, fmt.Errorf("connection: version %q is neither 5 nor 3.1.1", o.Version)
	}
	switch k := time.Duration(o.KeepAlive); {
	case k == 0:
		o.KeepAlive = contract.Duration(defaultKeepAlive)
	case k < 2*time.Second || k > 10*time.Minute:
		return nil, false, errors.New("connection: keepAlive must be between 2s and 10m")
	}
	scheme := ""
	for _, text := range o.Servers {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "mqtt" && u.Scheme != "mqtts" || u.Hostname() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, false, fmt.Errorf("connection: server %q must be mqtts://host:port or mqtt://host:port", text)
		}
		if scheme != "" && scheme != u.Scheme {
			return nil, false, errors.New("connection: the servers are all mqtts:// or all mqtt://")
		}
		scheme = u.Scheme
		port := u.Port()
		if port == "" {
			port = map[string]string{"mqtt": "1883", "mqtts": "8883"}[scheme]
		}
		address := net.JoinHostPort(u.Hostname(), port)
		servers = append(servers, server{u.Hostname(), address, scheme + "://" + address})
	}
	return servers, scheme == "mqtts", nil
}

// What identifies a message that says no id (sourceOptions.Identity).
const (
	identityDelivery = "Delivery"
	identityContent  = "Content"
)

// sourceOptions are the JSON of the API's MQTTSource.
type sourceOptions struct {
	Connection    connectionOptions `json:"connection"`
	Topics        []string          `json:"topics"`
	QoS           int               `json:"qos"`
	Share         string            `json:"share"`
	ClientID      string            `json:"clientID"`
	SessionExpiry contract.Duration `json:"sessionExpiry"`
	Prefetch      int               `json:"prefetch"`
	Identity      string            `json:"identity"`
	IDProperty    string            `json:"idProperty"`
	DeadLetter    string            `json:"deadLetter"`
}

func decodeSource(raw json.RawMessage) (o sourceOptions, err error) {
	if err = sdk.DecodeOptions(raw, &o); err != nil {
		return o, err
	}
	o.Prefetch = defaulted(o.Prefetch, defaultPrefetch)
	o.Identity = defaulted(o.Identity, identityDelivery)
	o.QoS = defaulted(o.QoS, 1)
	o.SessionExpiry = defaulted(o.SessionExpiry, contract.Duration(defaultExpiry))
	switch {
	case len(o.Topics) == 0 || len(o.Topics) > maxTopics:
		return o, fmt.Errorf("there must be 1 to %d topics", maxTopics)
	case o.QoS != 1 && o.QoS != 2:
		return o, errors.New("qos must be 1 or 2")
	case strings.ContainsAny(o.Share, "/+#") || !binding.Clean(o.Share):
		return o, errors.New("share has a character that a group's name cannot have")
	case o.Prefetch < 1 || o.Prefetch > maxPrefetch:
		return o, fmt.Errorf("prefetch must be between 1 and %d", maxPrefetch)
	case o.Identity != identityDelivery && o.Identity != identityContent:
		return o, fmt.Errorf("identity %q is not one of Delivery and Content", o.Identity)
	case time.Duration(o.SessionExpiry) < time.Minute || time.Duration(o.SessionExpiry) > 8760*time.Hour:
		return o, errors.New("sessionExpiry must be between 1m and 8760h")
	case o.IDProperty != "" && !o.Connection.five():
		return o, errors.New("idProperty: MQTT 3.1.1 has no user properties")
	case o.DeadLetter != "" && checkTopic(o.DeadLetter) != nil:
		return o, fmt.Errorf("deadLetter: %w", checkTopic(o.DeadLetter))
	}
	for _, filter := range o.Topics {
		if !validFilter(filter) {
			return o, fmt.Errorf("topics: %.100q is no filter of topics", filter)
		}
		if o.DeadLetter != "" && matches(filter, o.DeadLetter) {
			return o, fmt.Errorf("deadLetter: %q is among the topics that are read, by %q", o.DeadLetter, filter)
		}
	}
	return o, nil
}

func defaulted[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// validFilter tells whether wildcards stand where they may: `+` for a level, `#` for the last ones.
func validFilter(filter string) bool {
	if filter == "" || len(filter) > maxTopic || !binding.Clean(filter) || strings.HasPrefix(filter, "$share/") {
		return false
	}
	levels := strings.Split(filter, "/")
	for i, level := range levels {
		if strings.ContainsAny(level, "+#") && level != "+" && (level != "#" || i != len(levels)-1) {
			return false
		}
	}
	return true
}

// matches tells whether a filter leads to a topic.
func matches(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") != strings.HasPrefix(filter, "$") {
		return false
	}
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i, level := range f {
		switch {
		case level == "#":
			return true
		case i >= len(t) || level != "+" && level != t[i]:
			return false
		}
	}
	return len(f) == len(t)
}

// checkTopic that a message is published to.
func checkTopic(topic string) error {
	if topic == "" || len(topic) > maxTopic || !binding.Clean(topic) || strings.ContainsAny(topic, "+#") {
		return fmt.Errorf("topic %.100q is empty, too long, or holds wildcards or control characters", topic)
	}
	return nil
}

// sinkOptions are the JSON of the API's MQTTSink.
type sinkOptions struct {
	Connection connectionOptions `json:"connection"`
	Publish    json.RawMessage   `json:"publish"`
}

// publishOptions are the JSON of the API's MQTTPublish, the operation.
type publishOptions struct {
	Topic      string            `json:"topic"`
	QoS        int               `json:"qos"`
	Retain     bool              `json:"retain"`
	Properties map[string]string `json:"properties"`
	Expiration contract.Duration `json:"expiration"`
}

func decodePublish(raw json.RawMessage, five bool) (o publishOptions, err error) {
	if err = sdk.DecodeOptions(raw, &o); err != nil {
		return o, err
	}
	o.QoS = defaulted(o.QoS, 1)
	switch {
	case o.Topic == "":
		return o, errors.New("publish: topic is missing")
	case o.QoS != 1 && o.QoS != 2:
		return o, errors.New("publish: qos must be 1 or 2")
	case o.Expiration < 0 || o.Expiration > 0 && time.Duration(o.Expiration) < time.Second:
		return o, errors.New("publish: expiration must be at least 1s")
	case !five && (len(o.Properties) > 0 || o.Expiration > 0):
		return o, errors.New("publish: MQTT 3.1.1 has no properties and no expiration")
	}
	for name := range o.Properties {
		if slices.Contains(attributes, name) || name == "" || strings.HasPrefix(name, "metip-") || name == contract.HeaderTraceParent || name == contract.HeaderTraceState {
			return o, fmt.Errorf("publish: the property %q is set by the connector", name)
		}
	}
	return o, nil
}

// attributes of CloudEvents, as user properties.
var attributes = []string{"specversion", "id", "source", "type", "subject", "time", "partitionkey", "marking", "dataschema", "datacontenttype"}
