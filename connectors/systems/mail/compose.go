package mail

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"html"
	"mime"
	netmail "net/mail"
	"strings"
	"time"
	"unicode/utf8"

	gomail "github.com/wneessen/go-mail"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
	"github.com/metip/metip/connectors/systems/internal/binding"
)

const (
	// maxHeader of a header's value in bytes: a line of mail ends at 998, and is not always folded.
	maxHeader   = 900
	maxFileName = 255
)

// letter is a message as it goes over the wire, with its envelope: addresses in angle brackets.
type letter struct {
	from    string
	to      []string
	content []byte
	// international: an address is not of ASCII alone.
	international bool
}

// address is a template of one address.
type address struct {
	text     string
	template *steps.Template
	// whole: it is one expression. In others a value stands within an address, and must not end it.
	whole bool
}

func compileAddress(field, text string) (address, error) {
	template, err := steps.CompileTemplate(text)
	if err != nil {
		return address{}, fmt.Errorf("%s: %w", field, err)
	}
	return address{text, template, strings.HasPrefix(text, "{") && strings.HasSuffix(text, "}") && strings.Count(text, "{") == 1}, nil
}

func compileAddresses(field string, texts []string) ([]address, error) {
	var out []address
	for _, text := range texts {
		a, err := compileAddress(field, text)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

func (a *address) expand(m *sdk.Message) (*netmail.Address, error) {
	foreign := false
	var escape func(string) string
	if !a.whole {
		escape = func(value string) string {
			foreign = foreign || strings.ContainsAny(value, `<>()[]",;:\`)
			return value
		}
	}
	text, err := a.template.Expand(m, escape)
	switch {
	case err != nil:
		return nil, err
	case foreign:
		return nil, errors.New("a value has one of the characters <>()[]\",;:\\, which would end the address that it is written into")
	case !binding.Clean(text):
		return nil, errors.New("the address holds control characters")
	case len(text) > maxHeader:
		return nil, errors.New("the address is too long")
	}
	parsed, err := netmail.ParseAddress(text)
	if err != nil {
		return nil, fmt.Errorf("it is not one address: %w", err)
	}
	if !binding.Clean(parsed.Name) || !binding.Clean(parsed.Address) { // encoded words are decoded by now
		return nil, errors.New("the address holds control characters")
	}
	if len(parsed.Address) > 254 {
		return nil, errors.New("the address is longer than 254 bytes")
	}
	return parsed, nil
}

func expandAll(field string, addresses []address, m *sdk.Message) ([]*netmail.Address, error) {
	var out []*netmail.Address
	for i := range addresses {
		a, err := addresses[i].expand(m)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", field, addresses[i].text, err)
		}
		out = append(out, a)
	}
	return out, nil
}

// line expands what is one line of a header.
func line(field string, t *steps.Template, m *sdk.Message) (string, error) {
	if t == nil {
		return "", nil
	}
	text, err := t.Expand(m, nil)
	switch {
	case err != nil:
		return "", fmt.Errorf("%s: %w", field, err)
	case !binding.Clean(text):
		return "", fmt.Errorf("%s: it holds a line end or another control character", field)
	case len(text) > maxHeader:
		return "", fmt.Errorf("%s: it is longer than %d bytes", field, maxHeader)
	}
	return text, nil
}

// messageID is the same for every attempt and every Replay, and another for each destination.
func messageID(d *sdk.Delivery, from string) string {
	sum := sha256.Sum256([]byte(d.Durable + "/" + d.MessageID))
	return hex.EncodeToString(sum[:20]) + from[strings.LastIndexByte(from, '@'):]
}

// compose a message. An error is the message's own.
func (o *operation) compose(d *sdk.Delivery) (*letter, error) {
	m := d.Message
	from, err := o.from.expand(m)
	if err != nil {
		return nil, fmt.Errorf("from %s: %w", o.from.text, err)
	}
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent(), gomail.WithEncoding(gomail.EncodingQP))
	msg.FromMailAddress(from)
	l := &letter{}
	l.from = l.envelope(from)
	for _, list := range []struct {
		field     string
		header    gomail.AddrHeader
		addresses []address
	}{{"to", gomail.HeaderTo, o.to}, {"cc", gomail.HeaderCc, o.cc}, {"bcc", "", o.bcc}} {
		all, err := expandAll(list.field, list.addresses, m)
		if err != nil {
			return nil, err
		}
		if list.header != "" && len(all) > 0 {
			msg.SetAddrHeaderFromMailAddress(list.header, all...)
		}
		for _, a := range all {
			l.to = append(l.to, l.envelope(a))
		}
	}
	if err := o.head(msg, l, d, from.Address); err != nil {
		return nil, err
	}
	if err := o.body(msg, m); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.Grow(len(m.Data)*3/2 + 4096)
	if _, err := msg.WriteTo(&out); err != nil {
		return nil, err
	}
	l.content = out.Bytes()
	return l, nil
}

// envelope is an address as the protocol writes it. It notes one that is not of ASCII alone.
func (l *letter) envelope(a *netmail.Address) string {
	for i := range len(a.Address) {
		l.international = l.international || a.Address[i] >= utf8.RuneSelf
	}
	return (&netmail.Address{Address: a.Address}).String()
}

func (o *operation) head(msg *gomail.Msg, l *letter, d *sdk.Delivery, from string) error {
	m := d.Message
	subject, err := line("subject", o.subject, m)
	if err != nil {
		return err
	}
	msg.Subject(subject)
	msg.SetMessageIDWithValue(messageID(d, from))
	date := m.Time
	if date.IsZero() {
		date = time.Now()
	}
	msg.SetDateWithValue(date)
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // nobody's out-of-office shall answer
	for _, h := range [...]struct{ name, value string }{
		{"Metip-Id", m.ID}, {"Metip-Source", m.Source}, {"Metip-Type", m.Type}, {"Metip-Subject", m.Subject}, {"Metip-Correlation-Id", m.Headers["correlationid"]},
		{"Traceparent", m.Headers[contract.HeaderTraceParent]}, {"Tracestate", m.Headers[contract.HeaderTraceState]},
	} {
		if h.value != "" && len(h.value) <= maxHeader && binding.Clean(h.value) {
			msg.SetGenHeader(gomail.Header(h.name), h.value)
		}
	}
	for i := range o.headers {
		h := &o.headers[i]
		if h.reply != nil {
			reply, err := h.reply.expand(m)
			if err != nil {
				return fmt.Errorf("header %s: %w", h.name, err)
			}
			l.envelope(reply)
			msg.SetGenHeader(gomail.Header(h.name), reply.String())
			continue
		}
		value, err := line("header "+h.name, h.value, m)
		if err != nil {
			return err
		}
		msg.SetGenHeader(gomail.Header(h.name), value)
	}
	return nil
}

func (o *operation) body(msg *gomail.Msg, m *sdk.Message) error {
	kind := gomail.TypeTextPlain
	var escape func(string) string
	if o.options.ContentType == bodyHTML {
		kind, escape = gomail.TypeTextHTML, html.EscapeString
	}
	text := ""
	switch {
	case o.text != nil:
		var err error
		if text, err = o.text.Expand(m, escape); err != nil {
			return fmt.Errorf("body: %w", err)
		}
	case o.fileName == nil:
		text = string(m.Data)
	}
	if !utf8.ValidString(text) {
		return errors.New("the body is not text in UTF-8: send it as attachment")
	}
	msg.SetBodyString(kind, text)
	if o.fileName == nil {
		return nil
	}
	name, err := line("attachment: fileName", o.fileName, m)
	if err != nil {
		return err
	}
	if name == "" || len(name) > maxFileName || strings.ContainsAny(name, `/\"`) {
		return fmt.Errorf("attachment: fileName: it is empty, longer than %d bytes, or has one of the characters / \\ \"", maxFileName)
	}
	contentType := "application/octet-stream"
	if media, parameters, err := mime.ParseMediaType(m.ContentType); err == nil {
		contentType = mime.FormatMediaType(media, parameters)
	}
	msg.AttachReadSeeker(name, bytes.NewReader(m.Data), gomail.WithFileContentType(gomail.ContentType(contentType)))
	return nil
}
