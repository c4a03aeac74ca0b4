package http

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/google/uuid"

	"github.com/metip/metip/connectors/sdk"
)

// Dialect is a protocol that is spoken over HTTP POST, such as SOAP: it says what a request holds, and how it is answered. Admission, limits,
// publishing and draining are the listener's, as of every other request.
type Dialect interface {
	// Describe answers a GET with what the listener is, and tells whether it did.
	Describe(w http.ResponseWriter, r *http.Request) bool
	// Open a request. Where that cannot be done it writes the answer itself, and returns nil.
	Open(w http.ResponseWriter, r *http.Request, body []byte) Conversation
	// Refuse a request that was not opened. What HTTP's own headers have to say is set.
	Refuse(w http.ResponseWriter, r *http.Request, status int, detail string)
}

// Conversation is a request that was opened, and is to be answered once.
type Conversation interface {
	// Message of the request. Without an ID it gets what the header Idempotency-Key says, or a new one.
	Message() *sdk.Message
	// Accept says that the broker has the message.
	Accept(w http.ResponseWriter)
	// Answer with what a service has answered.
	Answer(w http.ResponseWriter, a *sdk.Answer)
	// Refuse says why the message is not on the bus.
	Refuse(w http.ResponseWriter, status int, detail string)
}

// NewDialectSource makes a source that speaks a dialect, of the JSON of the API's HTTPSource.
func NewDialectSource(rt sdk.Runtime, options json.RawMessage, dialect Dialect) (sdk.Source, error) {
	made, err := NewSource(rt, options)
	if err != nil {
		return nil, err
	}
	s := made.(*source)
	if s.handler.maxBody > maxDialectBody {
		return nil, errors.New("maxBodySize must be at most 8Mi")
	}
	s.handler.dialect = dialect
	return s, nil
}

// maxDialectBody that is read as a whole.
const maxDialectBody = 8 << 20

// converse does the whole work of a request in a dialect.
func (h *handler) converse(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != h.path {
		h.dialect.Refuse(w, r, http.StatusNotFound, "send to the path "+h.path)
		return
	}
	credentials, p := h.admit(r)
	if p == nil && r.Method == http.MethodGet && h.dialect.Describe(w, r) {
		return
	}
	if p == nil {
		p = h.expect(r)
	}
	if p != nil {
		h.refuse(w, r, p)
		return
	}
	body, _, release, p := h.readBody(w, r)
	if p != nil {
		h.refuse(w, r, p)
		return
	}
	defer release()
	if p := h.auth.checkBody(credentials, r.Header, body); p != nil {
		h.refuse(w, r, p)
		return
	}
	c := h.dialect.Open(w, r, body)
	if c == nil {
		return
	}
	m := c.Message()
	setRequestTrace(m, r.Header)
	if h.exchange != nil {
		h.ask(w, r, c)
		return
	}
	if m.ID == "" {
		id, err := idempotencyKey(r.Header)
		if err != nil {
			c.Refuse(w, http.StatusBadRequest, err.Error())
			return
		}
		m.ID, m.Endpoint = id, keyEndpoint(h.path)
	}
	ctx, cancel := context.WithTimeout(r.Context(), publishTimeout)
	defer cancel()
	if err := h.bus.Publish(ctx, m); err != nil {
		p := busProblem(err)
		p.announce(w)
		c.Refuse(w, p.status, p.detail)
		return
	}
	c.Accept(w)
}

// expect what is needed before the body is read.
func (h *handler) expect(r *http.Request) *problem {
	switch {
	case r.Method != http.MethodPost:
		p := problemf(http.StatusMethodNotAllowed, "send POST")
		p.header = [2]string{"Allow", "POST"}
		return p
	case h.exchange == nil:
		if err := h.bus.Ready(); err != nil {
			return busProblem(err)
		}
	case h.exchange.caller == nil:
		return problemf(http.StatusNotFound, "no Route takes the requests of this connector")
	}
	return nil
}

// ask a service, and answer with what it says.
func (h *handler) ask(w http.ResponseWriter, r *http.Request, c Conversation) {
	request := &sdk.Request{Message: *c.Message(), Method: http.MethodPost, Header: requestHeaders(r.Header, h.exchange.signature)}
	request.ID = uuid.NewString()
	if err := request.Check(); err != nil {
		c.Refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	ctx := r.Context()
	if limit := callerLimit(r.Header); limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	answer := h.exchange.caller.Call(ctx, request)
	defer answer.Close()
	if answer.Hop != "" {
		w.Header()[headerHop] = []string{answer.Hop}
	}
	c.Answer(w, answer)
}

func (h *handler) refuse(w http.ResponseWriter, r *http.Request, p *problem) {
	p.announce(w)
	h.dialect.Refuse(w, r, p.status, p.detail)
}

// announce what HTTP's own headers have to say of it.
func (p *problem) announce(w http.ResponseWriter) {
	header := w.Header()
	if p.retryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	if p.header[0] != "" {
		header.Set(p.header[0], p.header[1])
	}
}
