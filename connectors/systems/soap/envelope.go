package soap

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/metip/metip/connectors/codec"
	"github.com/metip/metip/connectors/systems/internal/xmlns"
)

// version of SOAP.
type version uint8

const (
	version11 version = iota + 1
	version12
)

// Namespaces.
const (
	ns11       = "http://schemas.xmlsoap.org/soap/envelope/"
	ns12       = "http://www.w3.org/2003/05/soap-envelope"
	nsSecurity = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"
	nsUtility  = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd"
	nsAddress  = "http://www.w3.org/2005/08/addressing"
)

func (v version) namespace() string {
	if v == version11 {
		return ns11
	}
	return ns12
}

// String is what the version is called.
func (v version) String() string {
	if v == version11 {
		return "1.1"
	}
	return "1.2"
}

// mediaType of messages of the version.
func (v version) mediaType() string {
	if v == version11 {
		return "text/xml"
	}
	return "application/soap+xml"
}

// envelope that was received.
type envelope struct {
	version version
	headers []header
	// payload is the element within Body, with the declarations of namespaces that it needs; nil where Body is empty.
	payload []byte
	// name of the payload.
	name xml.Name
	// fault is what Body holds instead.
	fault *fault
}

// header block, with the declarations that it needs.
type header struct {
	name           xml.Name
	mustUnderstand bool
	raw            []byte
}

// header of a name; nil where there is none.
func (e *envelope) header(space, local string) *header {
	for i := range e.headers {
		if h := &e.headers[i]; h.name.Space == space && h.name.Local == local {
			return h
		}
	}
	return nil
}

// text of a header that holds nothing but text.
func (e *envelope) text(space, local string) string {
	h := e.header(space, local)
	if h == nil {
		return ""
	}
	var value string
	if xml.Unmarshal(h.raw, &value) != nil {
		return ""
	}
	return strings.TrimSpace(value)
}

// answersHere tells whether WS-Addressing lets the answer go back over the connection that the envelope came by.
func (e *envelope) answersHere() bool {
	for _, local := range []string{"ReplyTo", "FaultTo"} {
		h := e.header(nsAddress, local)
		if h == nil {
			continue
		}
		var endpoint struct {
			Address string `xml:"Address"`
		}
		if xml.Unmarshal(h.raw, &endpoint) != nil {
			return false
		}
		if to := strings.TrimSpace(endpoint.Address); to != nsAddress+"/anonymous" && to != nsAddress+"/none" {
			return false
		}
	}
	return true
}

// errVersion says that the envelope is of no version that is known here.
var errVersion = errors.New("the envelope is neither of SOAP 1.1 nor of SOAP 1.2")

// errNoEnvelope says that it is none at all.
var errNoEnvelope = errors.New("it is no SOAP envelope")

const maxHeaders = 64

// parser goes through an envelope. The body was found well-formed before, without document type and of bounded depth.
type parser struct {
	text []byte
	*xml.Decoder
}

// parse an envelope. charset is what the transport says of the body; empty leaves it to the body.
func parse(body []byte, charset string) (*envelope, error) {
	text, err := codec.RecodeXML(body, charset, "")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoEnvelope, err)
	}
	p := parser{text, xml.NewDecoder(bytes.NewReader(text))}
	start, _, err := p.child()
	if err != nil || start == nil {
		return nil, errNoEnvelope
	}
	e := &envelope{}
	switch {
	case start.Name.Local != "Envelope":
		return nil, fmt.Errorf("%w: the outermost element is %.80q", errNoEnvelope, start.Name.Local)
	case start.Name.Space == ns11:
		e.version = version11
	case start.Name.Space == ns12:
		e.version = version12
	default:
		return nil, errVersion
	}
	return e, p.envelope(e, xmlns.Within(nil, start))
}

func (p *parser) envelope(e *envelope, scope []xmlns.Declaration) error {
	bodies := 0
	for {
		start, _, err := p.child()
		if err != nil {
			return err
		}
		if start == nil {
			if bodies != 1 {
				return errors.New("the envelope has not one Body")
			}
			return nil
		}
		if start.Name.Space != e.version.namespace() {
			if err := p.Skip(); err != nil {
				return err
			}
			continue
		}
		within := xmlns.Within(scope, start)
		switch start.Name.Local {
		case "Header":
			err = p.blocks(e, within)
		case "Body":
			bodies++
			err = p.content(e, within)
		default:
			err = p.Skip()
		}
		if err != nil {
			return err
		}
	}
}

// blocks of Header.
func (p *parser) blocks(e *envelope, scope []xmlns.Declaration) error {
	for {
		start, from, err := p.child()
		if err != nil || start == nil {
			return err
		}
		if len(e.headers) == maxHeaders {
			return fmt.Errorf("the envelope has more than %d headers", maxHeaders)
		}
		raw, err := p.element(start, from, scope)
		if err != nil {
			return err
		}
		h := header{name: start.Name, raw: raw}
		forUs := true
		for _, a := range start.Attr {
			if a.Name.Space != e.version.namespace() {
				continue
			}
			switch a.Name.Local {
			case "mustUnderstand":
				h.mustUnderstand = a.Value == "1" || a.Value == "true"
			case "actor", "role":
				forUs = a.Value == "" || strings.HasSuffix(a.Value, "/actor/next") || strings.HasSuffix(a.Value, "/role/next") || strings.HasSuffix(a.Value, "/role/ultimateReceiver")
			}
		}
		if forUs {
			e.headers = append(e.headers, h)
		}
	}
}

// content of Body: one element, or none.
func (p *parser) content(e *envelope, scope []xmlns.Declaration) error {
	for {
		start, from, err := p.child()
		if err != nil || start == nil {
			return err
		}
		if e.payload != nil || e.fault != nil {
			return errors.New("the Body holds several elements, and one is carried")
		}
		raw, err := p.element(start, from, scope)
		if err != nil {
			return err
		}
		if start.Name.Space == e.version.namespace() && start.Name.Local == "Fault" {
			if e.fault, err = parseFault(raw); err != nil {
				return err
			}
			continue
		}
		e.payload, e.name = raw, start.Name
	}
}

// child that comes next, and where it begins; nil at the end of its parent.
func (p *parser) child() (*xml.StartElement, int64, error) {
	for {
		from := p.InputOffset()
		token, err := p.Token()
		if errors.Is(err, io.EOF) {
			return nil, 0, io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, 0, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			return &t, from, nil
		case xml.EndElement:
			return nil, 0, nil
		}
	}
}

// element that has begun, to its end, with the declarations from around it that it needs.
func (p *parser) element(start *xml.StartElement, from int64, scope []xmlns.Declaration) ([]byte, error) {
	if err := p.Skip(); err != nil {
		return nil, err
	}
	return xmlns.Detach(p.text[from:p.InputOffset()], start, scope), nil
}

// build an envelope of header blocks and a payload, both XML.
func build(v version, headers, payload []byte) []byte {
	out := make([]byte, 0, len(headers)+len(payload)+192)
	out = append(out, `<?xml version="1.0" encoding="UTF-8"?><soap:Envelope xmlns:soap="`...)
	out = append(append(out, v.namespace()...), `">`...)
	if len(headers) > 0 {
		out = append(append(append(out, "<soap:Header>"...), headers...), "</soap:Header>"...)
	}
	return append(append(append(out, "<soap:Body>"...), payload...), "</soap:Body></soap:Envelope>"...)
}
