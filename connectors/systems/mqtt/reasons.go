package mqtt

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/oneline"
	"github.com/metip/metip/connectors/systems/internal/tlsfiles"
)

// Reason codes of MQTT 5 that are told apart; from codeFailed on, all are errors.
const (
	codeFailed        = 0x80
	codeVersion       = 0x84
	codePassword      = 0x86
	codeForbidden     = 0x87
	codeUnavailable   = 0x88
	codeBusy          = 0x89
	codeBanned        = 0x8a
	codeShuttingDown  = 0x8b
	codeMethod        = 0x8c
	codeKeepAlive     = 0x8d
	codeTakenOver     = 0x8e
	codeFilter        = 0x8f
	codeTopic         = 0x90
	codeTooLarge      = 0x95
	codeQuota         = 0x97
	codePayload       = 0x99
	codeNoRetain      = 0x9a
	codeQoS           = 0x9b
	codeAnother       = 0x9c
	codeMoved         = 0x9d
	codeNoShared      = 0x9e
	codeRate          = 0x9f
	codeNoWildcard    = 0xa2
	codeNotAuthorized = 5 // of 3.1.1
)

var reasons = map[byte]string{
	0x80: "unspecified error", 0x81: "malformed packet", 0x82: "protocol error", 0x83: "refused for a reason of the server's own", codeVersion: "this version of MQTT is not supported",
	0x85: "the client id is not accepted", codePassword: "wrong user name or password", codeForbidden: "not authorized", codeUnavailable: "the server is unavailable",
	codeBusy: "the server is busy", codeBanned: "banned", codeShuttingDown: "the server shuts down", codeMethod: "wrong authentication method", codeKeepAlive: "the keep-alive ran out",
	codeTakenOver: "another client with this client id has taken over the session", codeFilter: "the filter of topics is not accepted", codeTopic: "the name of the topic is not accepted",
	0x91: "the packet id is in use", 0x93: "more messages than the receive maximum", codeTooLarge: "the packet is too large", 0x96: "too many messages", codeQuota: "the quota is exceeded",
	0x98: "ended by an administrator", codePayload: "the body is not in the format that was said", codeNoRetain: "retained messages are not supported", codeQoS: "this QoS is not supported",
	codeAnother: "use another server", codeMoved: "the server has moved", codeNoShared: "shared subscriptions are not supported", codeRate: "too many connections", 0xa0: "connected for too long",
	codeNoWildcard: "wildcards are not supported",
}

var oldReasons = map[byte]string{
	1: "this version of MQTT is not supported", 2: "the client id is not accepted", 3: "the server is unavailable", 4: "wrong user name or password", codeNotAuthorized: "not authorized",
}

// errServer is an error that the server has said.
type errServer struct {
	text string
	code byte
	// refused says that it is about who we are; away, that the server will come back.
	refused, away bool
}

func (e *errServer) Error() string { return e.text }

// reasonError is what a packet of MQTT 5 gives as its reason.
func reasonError(code byte, said string) *errServer {
	e := &errServer{text: reasons[code], code: code}
	if e.text == "" {
		e.text = "an error"
	}
	e.text = fmt.Sprintf("%s (0x%02x)", e.text, code)
	if said = oneline.Excerpt(said, maxExcerpt); said != "" {
		e.text += ": " + said
	}
	switch code {
	case codePassword, codeForbidden, codeBanned, codeMethod:
		e.refused = true
	case codeUnavailable, codeBusy, codeShuttingDown, codeKeepAlive, codeTakenOver, codeAnother, codeMoved, codeRate, 0x98, 0xa0:
		e.away = true
	}
	return e
}

// connackError of a server that does not want the connection. One of 3.1.1 answers in its own way, whatever it is asked.
func connackError(p *packet, five bool) error {
	if p.code >= codeFailed {
		e := reasonError(p.code, p.reason)
		if p.code == codeVersion && five {
			e.text += ` (does it speak MQTT 3.1.1 only? then write version: "3.1.1")`
		}
		return e
	}
	e := &errServer{text: oldReasons[p.code], code: p.code, refused: p.code == 4 || p.code == codeNotAuthorized, away: p.code == 3}
	if e.text == "" {
		e.text = "an error"
	}
	e.text = fmt.Sprintf("%s (%d)", e.text, p.code)
	if p.code == 1 && five {
		e.text += ` (does it speak MQTT 3.1.1 only? then write version: "3.1.1")`
	}
	return e
}

// openError is the state of a server that a connection cannot be made to.
func openError(endpoint string, err error) error {
	var record tls.RecordHeaderError
	if errors.As(err, &record) {
		err = fmt.Errorf("%w (does the port speak without TLS? then write mqtt:// in servers)", err)
	}
	return unavailable(endpoint, err)
}

// unavailable is the state of a server that a connection, or what is asked over it, fails at.
func unavailable(endpoint string, err error) error {
	var already *sdk.UnavailableError
	if errors.As(err, &already) {
		return already
	}
	reason := contract.ReasonConnectionFailed
	var answer *errServer
	switch {
	case tlsfiles.IsCertificateError(err):
		reason = contract.ReasonCertificateInvalid
	case errors.As(err, &answer) && answer.refused:
		reason = contract.ReasonAuthenticationFailed
	case errors.As(err, &answer) && answer.away:
	case errors.As(err, &answer), errors.Is(err, errPacket):
		reason = contract.ReasonSystemError
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("the server has closed the connection")
	}
	return sdk.Unavailable(reason, fmt.Errorf("%s: %w", endpoint, err))
}

// judge what the server says of a message that was published.
func judge(endpoint, topic string, err error) error {
	var answer *errServer
	if err == nil || !errors.As(err, &answer) {
		return err
	}
	var already *sdk.UnavailableError
	if errors.As(err, &already) {
		return err
	}
	err = fmt.Errorf("%s: topic %s: %w", endpoint, topic, err)
	switch {
	case answer.refused:
		return sdk.Unavailable(contract.ReasonAuthenticationFailed, err)
	case answer.code == codeTopic || answer.code == codePayload || answer.code == codeTooLarge:
		return sdk.Permanent(err)
	}
	return err
}
