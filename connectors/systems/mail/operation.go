package mail

import (
	"context"
	"errors"
	"fmt"
	"net/textproto"
	"slices"
	"strings"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

// maxBatch of messages that go over the connection one after the other.
const maxBatch = 16

// operation sends one kind of message.
type operation struct {
	sink        *sink
	options     sendOptions
	from        address
	to, cc, bcc []address
	subject     *steps.Template
	text        *steps.Template // nil: the message's own
	fileName    *steps.Template // nil: no attachment
	headers     []headerTemplate
}

type headerTemplate struct {
	name  string
	value *steps.Template
	// reply is where answers go to, one address, in place of a value.
	reply *address
}

func newOperation(s *sink, o sendOptions) (*operation, error) {
	op := &operation{sink: s, options: o}
	var err error
	if op.from, err = compileAddress("from", o.From); err != nil {
		return nil, err
	}
	for _, list := range []struct {
		field string
		texts []string
		into  *[]address
	}{{"to", o.To, &op.to}, {"cc", o.Cc, &op.cc}, {"bcc", o.Bcc, &op.bcc}} {
		if *list.into, err = compileAddresses(list.field, list.texts); err != nil {
			return nil, err
		}
	}
	texts := map[string]struct {
		text string
		into **steps.Template
	}{"subject": {o.Subject, &op.subject}, "body": {o.Body, &op.text}}
	if o.Attachment != nil {
		texts["attachment: fileName"] = struct {
			text string
			into **steps.Template
		}{o.Attachment.FileName, &op.fileName}
	}
	for field, t := range texts {
		if t.text == "" {
			continue
		}
		if *t.into, err = steps.CompileTemplate(t.text); err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
	}
	for name, text := range o.Headers {
		h := headerTemplate{name: name}
		if strings.EqualFold(name, "reply-to") {
			reply, err := compileAddress("header "+name, text)
			if err != nil {
				return nil, err
			}
			h.reply = &reply
		} else if h.value, err = steps.CompileTemplate(text); err != nil {
			return nil, fmt.Errorf("header %s: %w", name, err)
		}
		op.headers = append(op.headers, h)
	}
	slices.SortFunc(op.headers, func(a, b headerTemplate) int { return strings.Compare(a.name, b.name) })
	return op, nil
}

// MaxBatch is what goes over the connection in one turn.
func (o *operation) MaxBatch() int { return maxBatch }

// Write submits the messages in their order. A server that is lost is not tried again for those that follow.
func (o *operation) Write(ctx context.Context, batch []*sdk.Delivery) []error {
	results := make([]error, len(batch))
	var down error
	select {
	case o.sink.turn <- struct{}{}:
		defer o.sink.release()
	case <-ctx.Done():
		down = ctx.Err()
	}
	for i, d := range batch {
		if down == nil {
			down = ctx.Err()
		}
		if down != nil {
			results[i] = down
			continue
		}
		results[i] = o.deliver(ctx, d)
		var unavailable *sdk.UnavailableError
		if errors.As(results[i], &unavailable) {
			down = results[i]
		}
	}
	return results
}

func (o *operation) deliver(ctx context.Context, d *sdk.Delivery) error {
	l, err := o.compose(d)
	if err != nil {
		return sdk.Permanent(fmt.Errorf("%s: %w", o.sink.dialer.endpoint, err))
	}
	for {
		v, err := o.sink.open(ctx)
		if err != nil {
			return err
		}
		used := v.used
		v.used = true
		step := ""
		if err = v.takes(l); err == nil {
			err = o.sink.talk(ctx, v, func() (err error) {
				step, err = v.submit(l)
				return err
			})
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			o.sink.forget(v)
			return ctx.Err()
		}
		result, lost := o.judge(step, err)
		if lost {
			o.sink.forget(v)
		}
		if lost && used && step == stepMail {
			continue // it has ended since it was used last, and nothing was sent
		}
		return result
	}
}

// errTooMuch is what a server says beforehand that it does not take.
type errTooMuch struct{ error }

// takes tells whether the server takes such a message.
func (v *session) takes(l *letter) error {
	switch {
	case v.maxSize > 0 && int64(len(l.content)) > v.maxSize:
		return errTooMuch{fmt.Errorf("the message is %d bytes as mail, and the server takes %d (SIZE)", len(l.content), v.maxSize)}
	case l.international && !v.international:
		return errTooMuch{errors.New("an address is not of ASCII alone, and the server does not take such (SMTPUTF8)")}
	}
	return nil
}

// The steps of a submission.
const (
	stepMail = "MAIL FROM"
	stepRcpt = "RCPT TO"
	stepData = "DATA"
	stepEnd  = "end of DATA"
)

// submit a message to all of its recipients, or to none: one that is refused ends it before the content is sent.
func (v *session) submit(l *letter) (step string, err error) {
	v.client.SkipSMTPUTF8(!l.international)
	if err := v.client.Mail(l.from); err != nil {
		return stepMail, err
	}
	for _, to := range l.to {
		if err := v.client.Rcpt(to); err != nil {
			return stepRcpt + ":" + to, v.reset(err)
		}
	}
	w, err := v.client.Data()
	if err != nil {
		return stepData, v.reset(err)
	}
	if _, err := w.Write(l.content); err != nil {
		return stepEnd, err
	}
	return stepEnd, w.Close()
}

// reset a submission that was refused. The refusal is the result, unless the server has gone.
func (v *session) reset(refusal error) error {
	var answer *textproto.Error
	if errors.As(refusal, &answer) && answer.Code != 421 {
		if err := v.client.Reset(); err != nil {
			v.drop()
		}
	}
	return refusal
}

// judge what became of a message, and whether the connection is lost.
func (o *operation) judge(step string, err error) (result error, lost bool) {
	d := o.sink.dialer
	var answer *textproto.Error
	var much errTooMuch
	switch {
	case errors.As(err, &much):
		return sdk.Permanent(fmt.Errorf("%s: %w", d.endpoint, err)), false
	case !errors.As(err, &answer) || answer.Code == 421 || answer.Code < 400:
		return d.unavailable(err), true
	}
	err = fmt.Errorf("%s: %s: %w", d.endpoint, step, said(answer))
	switch code := answer.Code; {
	case code == 530 || code == 534 || code == 535 || code == 538:
		return sdk.Unavailable(contract.ReasonAuthenticationFailed, err), true
	case code == 503: // the order of commands: the session has gone wrong, the message has not
		return err, true
	case code < 500, code == 552 && strings.HasPrefix(step, stepRcpt): // too many recipients at once (RFC 5321, 4.5.3.1.10)
		return err, false
	}
	return sdk.Permanent(err), false
}
