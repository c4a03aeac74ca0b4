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

// serviceOptions are the JSON of the API's NATSService. Credentials and TLS are the Connector's.
type serviceOptions struct {
	// Servers of one cluster: nats://host:port, or tls://host:port.
	Servers []string `json:"servers"`
	// Subject that is asked, a template over the request: `persons.{headers["query-id"]}`. A value that is inserted is one token.
	Subject string `json:"subject"`
	// InboxPrefix of the replies, where the user may not subscribe to _INBOX.
	InboxPrefix string `json:"inboxPrefix"`
	// ContentType of answers that do not say theirs; empty means application/json.
	ContentType string `json:"contentType"`
}

func decodeServiceOptions(raw json.RawMessage) (o serviceOptions, hosts []string, subject *steps.Template, err error) {
	if err = sdk.DecodeOptions(raw, &o); err != nil {
		return o, nil, nil, err
	}
	if len(o.Servers) == 0 || len(o.Servers) > maxServers {
		return o, nil, nil, fmt.Errorf("there must be 1 to %d servers", maxServers)
	}
	scheme := ""
	for _, s := range o.Servers {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "nats" && u.Scheme != "tls" || u.Hostname() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
			return o, nil, nil, fmt.Errorf("server %q must be nats://host:port or tls://host:port", s)
		}
		if scheme != "" && scheme != u.Scheme {
			return o, nil, nil, errors.New("the servers are all nats:// or all tls://")
		}
		scheme = u.Scheme
		hosts = append(hosts, u.Hostname())
	}
	if subject, err = steps.CompileTemplate(o.Subject); err != nil {
		return o, nil, nil, fmt.Errorf("subject: %w", err)
	}
	if o.Subject == "" {
		return o, nil, nil, errors.New("subject is missing")
	}
	if !strings.Contains(o.Subject, "{") && !validSubject(o.Subject) {
		return o, nil, nil, fmt.Errorf("subject %q is no subject that can be asked: tokens with dots between them", o.Subject)
	}
	if o.InboxPrefix != "" && !validSubject(o.InboxPrefix) {
		return o, nil, nil, fmt.Errorf("inboxPrefix %q is no subject", o.InboxPrefix)
	}
	if o.ContentType == "" {
		o.ContentType = "application/json"
	}
	return o, hosts, subject, nil
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
