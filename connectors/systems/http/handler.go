package http

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

const (
	// maxRequests that are worked on at a time, and maxBodyBytes that they may hold together: what is above is asked to come again.
	maxRequests  = 1024
	maxBodyBytes = 32 << 20
	// publishTimeout is how long a caller waits for the broker's confirmation before it is told that there is none.
	publishTimeout = 20 * time.Second
	maxKeyBytes    = 256
)

// handler turns a request into messages, and the broker's confirmation into 202.
type handler struct {
	path    string
	maxBody int64
	format  string
	marking string
	auth    *listenAuth
	bus     sdk.Publisher
	// large takes the bodies that the bus does not carry; nil where maxBody is not above what it does.
	large    sdk.LargePublisher
	larges   atomic.Int64
	requests atomic.Int64
	bodies   atomic.Int64
	// exchange is nil where requests become messages.
	exchange *exchange
	// dialect is nil where requests are plain HTTP.
	dialect Dialect
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.requests.Add(1) > maxRequests {
		h.requests.Add(-1)
		p := unavailable(1, "too many requests at a time: send it again")
		if h.dialect != nil {
			h.refuse(w, r, p)
			return
		}
		p.write(w)
		return
	}
	defer h.requests.Add(-1)
	if h.dialect != nil {
		h.converse(w, r)
		return
	}
	if h.exchange != nil {
		h.call(w, r)
		return
	}
	ids, batch, p := h.accept(w, r)
	if p != nil {
		p.write(w)
		return
	}
	writeAccepted(w, ids, batch)
}

// accept does the whole work of a request. It returns the ids of what the broker has confirmed, or the answer that says why not.
func (h *handler) accept(w http.ResponseWriter, r *http.Request) (ids []string, batch bool, p *problem) {
	if r.URL.Path != h.path {
		return nil, false, problemf(http.StatusNotFound, "send to the path %s", h.path)
	}
	if r.Method != http.MethodPost && r.Method != http.MethodPut {
		p = problemf(http.StatusMethodNotAllowed, "send POST or PUT")
		p.header = [2]string{"Allow", "POST, PUT"}
		return nil, false, p
	}
	credentials, p := h.admit(r)
	if p != nil {
		return nil, false, p
	}
	if err := h.bus.Ready(); err != nil {
		return nil, false, busProblem(err)
	}
	body, rest, release, p := h.readBody(w, r)
	if p != nil {
		return nil, false, p
	}
	defer release()
	if rest != nil {
		ids, p = h.acceptLarge(w, r, rest)
		return ids, false, p
	}
	if p := h.auth.checkBody(credentials, r.Header, body); p != nil {
		return nil, false, p
	}
	messages, batch, p := h.messages(r, body)
	if p != nil {
		return nil, false, p
	}
	ctx, cancel := context.WithTimeout(r.Context(), publishTimeout)
	defer cancel()
	ids = make([]string, len(messages))
	for i, m := range messages {
		ids[i] = m.ID
	}
	if err := h.bus.Publish(ctx, messages...); err != nil {
		return nil, false, busProblem(err)
	}
	return ids, batch, nil
}

// admit a caller, as far as the header tells.
func (h *handler) admit(r *http.Request) (*listenCredentials, *problem) {
	credentials := h.auth.credentials()
	if credentials.err != nil {
		return nil, unavailable(10, "the connector has no credentials to check yours against yet: send it again later")
	}
	if p := h.auth.checkHeader(credentials, r.Header); p != nil {
		return nil, p
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		p := problemf(http.StatusUnsupportedMediaType, "send the body without Content-Encoding %.20q", encoding)
		p.header = [2]string{"Accept-Encoding", "identity"}
		return nil, p
	}
	return credentials, nil
}

// readBody reads a body that the bus carries, within what all requests together may hold. Of a larger one, up to maxBody, it is rest: what is
// to be read.
func (h *handler) readBody(w http.ResponseWriter, r *http.Request) (body []byte, rest io.Reader, release func(), p *problem) {
	size, carried := r.ContentLength, min(h.maxBody, contract.MaxMessageSize)
	if size > h.maxBody {
		return nil, nil, nil, h.tooLarge()
	}
	reserved := size
	switch {
	case size > carried:
		reserved = largeMemory
	case size < 0:
		reserved = carried
	}
	if h.bodies.Add(reserved) > maxBodyBytes {
		h.bodies.Add(-reserved)
		return nil, nil, nil, unavailable(1, "too much is being received at a time: send it again")
	}
	release = func() { h.bodies.Add(-reserved) }
	var err error
	switch {
	case size > carried:
		return h.begin(r.Body, release)
	case size >= 0:
		body = make([]byte, size)
		_, err = io.ReadFull(r.Body, body)
	default:
		limited := http.MaxBytesReader(w, r.Body, h.maxBody)
		if h.large == nil {
			body, err = io.ReadAll(limited)
		} else if body, err = io.ReadAll(io.LimitReader(limited, carried+1)); err == nil && int64(len(body)) > carried {
			// What was read is let go of when it has been passed on.
			return h.begin(io.MultiReader(bytes.NewReader(body), &after{limited, func() {
				h.bodies.Add(largeMemory - reserved)
				reserved = largeMemory
			}}), release)
		}
	}
	if err == nil {
		return body, nil, release, nil
	}
	release()
	return nil, nil, nil, h.unread(err)
}

// unread says why a body could not be read.
func (h *handler) unread(err error) *problem {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return h.tooLarge()
	}
	return problemf(http.StatusBadRequest, "the body did not arrive completely")
}

func (h *handler) tooLarge() *problem {
	return problemf(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes: send less, or raise maxBodySize of the Connector", h.maxBody)
}

// messages of a body: one, or those of a batch.
func (h *handler) messages(r *http.Request, body []byte) (messages []*sdk.Message, batch bool, p *problem) {
	declared := r.Header.Get("Content-Type")
	media := mediaType(declared)
	var events []*event
	var err error
	switch {
	case media == mediaStructured || media == mediaBatch:
		if err = checkFormat(sdk.FormatJSON, body); err != nil {
			return nil, false, badRequest(err)
		}
		if batch = media == mediaBatch; batch {
			events, err = parseBatch(body)
		} else {
			events = make([]*event, 1)
			events[0], err = parseStructured(body)
		}
	case strings.HasPrefix(media, mediaEvents):
		return nil, false, problemf(http.StatusUnsupportedMediaType, "send CloudEvents as %s, %s or in binary mode", mediaStructured, mediaBatch)
	case hasEventHeaders(r.Header):
		events = make([]*event, 1)
		events[0], err = parseBinary(r.Header, body)
	default:
		m, p := h.plain(r, declared, body)
		if p != nil {
			return nil, false, p
		}
		return []*sdk.Message{m}, false, nil
	}
	if errors.Is(err, errBatchTooLong) {
		return nil, false, problemf(http.StatusRequestEntityTooLarge, "%v", err)
	}
	if err != nil {
		return nil, false, badRequest(err)
	}
	messages = make([]*sdk.Message, len(events))
	for i, e := range events {
		if messages[i], err = e.finish(h.path, h.marking); err == nil && !batch {
			setRequestTrace(messages[i], r.Header)
		}
		if err != nil {
			return nil, false, badRequest(inBatch(batch, i, err))
		}
		if p := h.checkData(messages[i], batch, i); p != nil {
			return nil, false, p
		}
	}
	return messages, batch, nil
}

// plain makes a message of a request that is no CloudEvent.
func (h *handler) plain(r *http.Request, declared string, body []byte) (*sdk.Message, *problem) {
	m := &sdk.Message{Endpoint: keyEndpoint(h.path), ContentType: declared, Data: body}
	id, err := idempotencyKey(r.Header)
	if err != nil {
		return nil, badRequest(err)
	}
	m.ID = id
	setRequestTrace(m, r.Header)
	return m, h.checkData(m, false, 0)
}

// idempotencyKey is the caller's own name of the message, with or without the double quotes of the header's draft standard; a new one if there is none.
func idempotencyKey(header http.Header) (string, error) {
	switch values := header["Idempotency-Key"]; {
	case len(values) == 0:
		return uuid.NewString(), nil
	case len(values) > 1:
		return "", errors.New("header Idempotency-Key is given twice")
	default:
		key := strings.TrimSuffix(strings.TrimPrefix(values[0], `"`), `"`)
		if key == "" || len(key) > maxKeyBytes || checkAttribute(key) != nil {
			return "", fmt.Errorf("header Idempotency-Key: send 1 to %d printable characters", maxKeyBytes)
		}
		return key, nil
	}
}

func setRequestTrace(m *sdk.Message, header http.Header) {
	parent := header["Traceparent"]
	if len(parent) != 1 || !traceParent.MatchString(parent[0]) {
		return
	}
	delete(m.Headers, "tracestate") // it belonged to another parent
	setHeader(m, "traceparent", parent[0])
	if state := strings.Join(header["Tracestate"], ","); state != "" {
		setTrace(m, "tracestate", state)
	}
}

// checkData refuses data that is not in the source's format, and settles its content type.
func (h *handler) checkData(m *sdk.Message, batch bool, i int) *problem {
	if h.format != sdk.FormatBinary {
		if charset := foreignCharset(m.ContentType); charset != "" {
			return problemf(http.StatusUnsupportedMediaType, "send the body as UTF-8 instead of %.40q", charset)
		}
		if err := checkFormat(h.format, m.Data); err != nil {
			return badRequest(inBatch(batch, i, err))
		}
	}
	if err := checkAttribute(m.ContentType); err != nil || len(m.ContentType) > maxIDBytes {
		return problemf(http.StatusBadRequest, "the content type holds control characters or is too long")
	}
	m.ContentType = contentType(h.format, m.ContentType)
	return nil
}

func inBatch(batch bool, i int, err error) error {
	if !batch {
		return err
	}
	return fmt.Errorf("event %d of the batch: %w", i, err)
}

func badRequest(err error) *problem { return problemf(http.StatusBadRequest, "%v", err) }

// busProblem says what a publisher's error means to the caller.
func busProblem(err error) *problem {
	switch {
	case errors.Is(err, sdk.ErrSchema):
		return problemf(http.StatusUnprocessableEntity, "%v", err)
	case errors.Is(err, sdk.ErrInvalid):
		return badRequest(err)
	case errors.Is(err, sdk.ErrFull):
		return unavailable(10, "the bus is full: send it again later, with the same id")
	case errors.Is(err, sdk.ErrSuspended):
		return unavailable(30, "the connector is suspended or restarts: send it again later, with the same id")
	default:
		return unavailable(2, "the bus has not confirmed the message: send it again, with the same id")
	}
}

// acceptedBody is the answer 202.
type acceptedBody struct {
	ID  string   `json:"id,omitempty"`
	IDs []string `json:"ids,omitempty"`
}

func writeAccepted(w http.ResponseWriter, ids []string, batch bool) {
	var room [64]byte
	body := room[:0]
	if !batch && len(ids[0]) < len(room)-len(`{"id":""}`) && plainJSON(ids[0]) {
		body = append(append(append(body, `{"id":"`...), ids[0]...), `"}`...)
	} else {
		body = acceptedJSON(ids, batch)
	}
	header := w.Header()
	header["Content-Type"] = jsonContentType
	w.WriteHeader(http.StatusAccepted)
	_, _ = w.Write(body) // a caller that is gone asks again with the same id
}

func acceptedJSON(ids []string, batch bool) []byte {
	answer := acceptedBody{}
	if batch {
		answer.IDs = ids
	} else {
		answer.ID = ids[0]
	}
	body, err := json.Marshal(answer)
	if err != nil {
		return []byte("{}")
	}
	return body
}

// plainJSON tells whether a text means itself between the quotes of JSON, as the ids do that are made here.
func plainJSON(s string) bool {
	for i := 0; i < len(s); i++ {
		if !unreserved(s[i]) {
			return false
		}
	}
	return s != ""
}

var jsonContentType = []string{"application/json"}
