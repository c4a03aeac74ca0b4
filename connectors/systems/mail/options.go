package mail

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// How a connection is encrypted.
const (
	encryptStartTLS = "StartTLS"
	encryptImplicit = "Implicit"
	encryptDisabled = "Disabled"
)

// What a body is.
const (
	bodyText = "Text"
	bodyHTML = "HTML"
)

// maxRecipients of one message: what every server must take (RFC 5321, 4.5.3.1.8).
const maxRecipients = 100

// connectionOptions are the JSON of the API's MailConnection.
type connectionOptions struct {
	Host       string `json:"host"`
	Port       int    `json:"port"`
	Encryption string `json:"encryption"`
}

// server is where, and what errors call it.
func (o *connectionOptions) server() (address, endpoint string, err error) {
	if o.Encryption == "" {
		o.Encryption = encryptStartTLS
	}
	ports := map[string]int{encryptStartTLS: 587, encryptImplicit: 465, encryptDisabled: 25}
	switch {
	case o.Host == "" || strings.ContainsAny(o.Host, " \r\n/@"):
		return "", "", errors.New("connection: host is missing, or none")
	case ports[o.Encryption] == 0:
		return "", "", fmt.Errorf("connection: encryption %q is not one of StartTLS, Implicit and Disabled", o.Encryption)
	case o.Port < 0 || o.Port > 65535:
		return "", "", errors.New("connection: port must be between 1 and 65535")
	case o.Port == 0:
		o.Port = ports[o.Encryption]
	}
	address = net.JoinHostPort(o.Host, strconv.Itoa(o.Port))
	scheme := "smtp://"
	if o.Encryption == encryptImplicit {
		scheme = "smtps://"
	}
	return address, scheme + address, nil
}

// sinkOptions are the JSON of the API's MailSink.
type sinkOptions struct {
	Connection connectionOptions `json:"connection"`
	Send       json.RawMessage   `json:"send"`
}

// sendOptions are the JSON of the API's MailSend, the operation.
type sendOptions struct {
	From        string            `json:"from"`
	To          []string          `json:"to"`
	Cc          []string          `json:"cc"`
	Bcc         []string          `json:"bcc"`
	Subject     string            `json:"subject"`
	Body        string            `json:"body"`
	ContentType string            `json:"contentType"`
	Attachment  *attachment       `json:"attachment"`
	Headers     map[string]string `json:"headers"`
}

type attachment struct {
	FileName string `json:"fileName"`
}

func decodeSend(raw json.RawMessage) (o sendOptions, err error) {
	if err = sdk.DecodeOptions(raw, &o); err != nil {
		return o, err
	}
	if o.ContentType == "" {
		o.ContentType = bodyText
	}
	n := len(o.To) + len(o.Cc) + len(o.Bcc)
	switch {
	case o.From == "":
		return o, errors.New("send: from is missing")
	case n == 0 || n > maxRecipients:
		return o, fmt.Errorf("send: to, cc and bcc are 1 to %d addresses together", maxRecipients)
	case o.ContentType != bodyText && o.ContentType != bodyHTML:
		return o, fmt.Errorf("send: contentType %q is neither Text nor HTML", o.ContentType)
	case o.Attachment != nil && o.Attachment.FileName == "":
		return o, errors.New("send: attachment: fileName is missing")
	}
	for name := range o.Headers {
		if reserved(name) {
			return o, fmt.Errorf("send: the header %q is none, or set by the connector", name)
		}
	}
	return o, nil
}

// ownHeaders are those of the message's way and form.
var ownHeaders = []string{"from", "to", "cc", "bcc", "sender", "subject", "date", "message-id", "mime-version", "received", "return-path", "dkim-signature",
	"auto-submitted", contract.HeaderTraceParent, contract.HeaderTraceState}

func reserved(name string) bool {
	name = strings.ToLower(name)
	for i := range len(name) {
		if c := name[i]; c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return true
		}
	}
	return name == "" || slices.Contains(ownHeaders, name) || strings.HasPrefix(name, "content-") || strings.HasPrefix(name, "resent-") || strings.HasPrefix(name, "metip-")
}
