package nats

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

// maxServers of one cluster that can be named.
const maxServers = 16

// connectionOptions are what the options of sources, sinks and services begin with. Credentials and TLS are the Connector's.
type connectionOptions struct {
	// Servers of one cluster: nats://host:port, or tls://host:port.
	Servers []string `json:"servers"`
	// InboxPrefix of the replies, where the user may not subscribe to _INBOX.
	InboxPrefix string `json:"inboxPrefix"`
}

func (o *connectionOptions) hosts() (hosts []string, err error) {
	if len(o.Servers) == 0 || len(o.Servers) > maxServers {
		return nil, fmt.Errorf("there must be 1 to %d servers", maxServers)
	}
	scheme := ""
	for _, s := range o.Servers {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "nats" && u.Scheme != "tls" || u.Hostname() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("server %q must be nats://host:port or tls://host:port", s)
		}
		if scheme != "" && scheme != u.Scheme {
			return nil, errors.New("the servers are all nats:// or all tls://")
		}
		scheme = u.Scheme
		hosts = append(hosts, u.Hostname())
	}
	if o.InboxPrefix != "" && !validSubject(o.InboxPrefix) {
		return nil, fmt.Errorf("inboxPrefix %q is no subject", o.InboxPrefix)
	}
	return hosts, nil
}

// serviceOptions are the JSON of the API's NATSService.
type serviceOptions struct {
	connectionOptions
	// Subject that is asked, a template over the request: `persons.{headers["query-id"]}`. A value that is inserted is one token.
	Subject string `json:"subject"`
	// ContentType of answers that do not say theirs; empty means application/json.
	ContentType string `json:"contentType"`
}

func decodeServiceOptions(raw json.RawMessage) (o serviceOptions, subject *steps.Template, err error) {
	if err = sdk.DecodeOptions(raw, &o); err != nil {
		return o, nil, err
	}
	if subject, err = compileSubject(o.Subject); err != nil {
		return o, nil, err
	}
	if o.ContentType == "" {
		o.ContentType = "application/json"
	}
	return o, subject, nil
}

// compileSubject of a request or a message.
func compileSubject(text string) (*steps.Template, error) {
	if text == "" {
		return nil, errors.New("subject is missing")
	}
	t, err := steps.CompileTemplate(text)
	if err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	if !strings.Contains(text, "{") && !validSubject(text) {
		return nil, fmt.Errorf("subject %q is no subject that can be asked: tokens with dots between them", text)
	}
	return t, nil
}

// validSubject to publish to: tokens without wildcards, with dots between them, and none of the server's own.
func validSubject(s string) bool {
	if s == "" || len(s) > 1024 || s[0] == '$' {
		return false
	}
	for token := range strings.SplitSeq(s, ".") {
		if token == "" {
			return false
		}
	}
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '*' || r == '>' }) < 0
}

const (
	defaultMaxPending = 256
	maxMaxPending     = 4096
)

// Where a consumer begins that the source makes.
const (
	startAll = "All"
	startNew = "New"
)

// How a message is confirmed.
const (
	confirmJetStream = "JetStream"
	confirmServer    = "Server"
)

// sourceOptions are the JSON of the API's NATSSource.
type sourceOptions struct {
	connectionOptions
	// Stream, and its durable pull Consumer. One that is missing is made, with the filter Subjects, beginning at Start.
	Stream   string   `json:"stream"`
	Consumer string   `json:"consumer"`
	Subjects []string `json:"subjects"`
	Start    string   `json:"start"`
	Domain   string   `json:"domain"`
	// MaxPending messages that are not acknowledged.
	MaxPending int `json:"maxPending"`
	// DeadLetter is a subject for messages that the bus can never take; empty means that the source stops at them.
	DeadLetter string `json:"deadLetter"`
}

func decodeSource(raw json.RawMessage) (o sourceOptions, err error) {
	if err = sdk.DecodeOptions(raw, &o); err != nil {
		return o, err
	}
	if o.MaxPending == 0 {
		o.MaxPending = defaultMaxPending
	}
	if o.Start == "" {
		o.Start = startAll
	}
	switch {
	case !validName(o.Stream) || !validName(o.Consumer):
		return o, errors.New("stream and consumer must be names without dots, spaces, * and >")
	case o.Domain != "" && !validName(o.Domain):
		return o, errors.New("domain must be a name without dots, spaces, * and >")
	case o.MaxPending < 1 || o.MaxPending > maxMaxPending:
		return o, fmt.Errorf("maxPending must be between 1 and %d", maxMaxPending)
	case o.Start != startAll && o.Start != startNew:
		return o, fmt.Errorf("start %q is neither %s nor %s", o.Start, startAll, startNew)
	case o.DeadLetter != "" && !validSubject(o.DeadLetter):
		return o, fmt.Errorf("deadLetter %q is no subject", o.DeadLetter)
	}
	return o, nil
}

// validName of a stream or consumer.
func validName(s string) bool { return validSubject(s) && !strings.ContainsAny(s, `./\`) }

// sinkOptions are the JSON of the API's NATSSink.
type sinkOptions struct {
	connectionOptions
	Domain  string          `json:"domain"`
	Publish json.RawMessage `json:"publish"`
}

// publishOptions are the JSON of the API's NATSPublish.
type publishOptions struct {
	// Subject is a template over the message. A value that is inserted is one token.
	Subject string            `json:"subject"`
	Headers map[string]string `json:"headers"`
	Confirm string            `json:"confirm"`
}
