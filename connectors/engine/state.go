package engine

import (
	"bytes"
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
)

// Bounds of the store of documents.
const (
	// stateTimeout of one read or write.
	stateTimeout = 5 * time.Second
	// stateCache is how many bytes of documents are kept in memory; what is not there is read from the broker.
	stateCache = 8 << 20
	// scanPage is how many documents are read at a time.
	scanPage = 200

	headerTTL      = "Nats-TTL"
	headerSequence = "Nats-Sequence"
	headerSubject  = "Nats-Subject"
)

// cachedOverhead of a document in memory, beside its text.
const cachedOverhead = 512

// errStateFull: the stream of the state has no room.
var errStateFull = errors.New("the state is full")

// errNoState: there is no stream of the state.
var errNoState = errors.New("there is no stream for state")

// errConflict: another pod has written the document since it was read.
var errConflict = errors.New("the document was changed by another pod")

// stateStore reads and writes documents of the Integration's state. A write names the sequence of what it replaces, so that what was read may
// be old (a copy of the stream may lag behind, the cache may) but nothing that was written is ever undone.
type stateStore struct {
	nc     *nats.Conn
	stream string

	mu    sync.Mutex
	cache map[string]*list.Element
	order list.List
	bytes int
}

// cachedDoc is a document, as its owner has decoded it: nobody changes it.
type cachedDoc struct {
	subject string
	doc     *stateDoc
	seq     uint64
	size    int
}

func newStateStore(nc *nats.Conn, stream string) *stateStore {
	return &stateStore{nc: nc, stream: stream, cache: map[string]*list.Element{}}
}

// get a document from the cache, or from the broker; an empty one when there is none.
func (s *stateStore) get(ctx context.Context, subject string) (*stateDoc, uint64, error) {
	s.mu.Lock()
	if e, ok := s.cache[subject]; ok {
		s.order.MoveToFront(e)
		c := e.Value.(*cachedDoc)
		s.mu.Unlock()
		return c.doc, c.seq, nil
	}
	s.mu.Unlock()
	raw, seq, err := s.read(ctx, subject)
	if err != nil {
		return nil, 0, err
	}
	doc := &stateDoc{}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, doc); err != nil {
			return nil, 0, fmt.Errorf("the document %s: %w", subject, err)
		}
	}
	s.keep(subject, doc, seq, len(raw))
	return doc, seq, nil
}

// read the last document of a subject; nil when there is none.
func (s *stateStore) read(ctx context.Context, subject string) ([]byte, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	m, err := s.nc.RequestWithContext(ctx, contract.APIPrefix+".DIRECT.GET."+s.stream, []byte(`{"last_by_subj":"`+subject+`"}`))
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("reading %s of stream %s: %w", subject, s.stream, err)
	case first(m.Header, "Status") == "404":
		return nil, 0, nil
	case first(m.Header, "Status") != "":
		return nil, 0, fmt.Errorf("reading %s of stream %s: %s %s", subject, s.stream, first(m.Header, "Status"), first(m.Header, "Description"))
	}
	seq, err := strconv.ParseUint(first(m.Header, headerSequence), 10, 64)
	return m.Data, seq, err
}

// put a document in place of the one of a sequence; 0 means that there must be none. It is forgotten after ttl, if that is not 0.
func (s *stateStore) put(ctx context.Context, subject string, doc *stateDoc, seq uint64, ttl time.Duration) (uint64, error) {
	raw, err := doc.encode()
	if err == nil {
		seq, err = s.write(ctx, subject, raw, seq, ttl)
	}
	if err != nil {
		s.forget(subject)
		return 0, err
	}
	s.keep(subject, doc, seq, len(raw))
	return seq, nil
}

func (d *stateDoc) encode() ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false) // the bodies are others'
	err := encoder.Encode(d)
	return out.Bytes(), err
}

func (s *stateStore) write(ctx context.Context, subject string, raw []byte, expected uint64, ttl time.Duration) (uint64, error) {
	m := &nats.Msg{Subject: subject, Data: raw, Header: nats.Header{headerExpectedLastBySubj: {strconv.FormatUint(expected, 10)}}}
	if ttl > 0 {
		m.Header[headerTTL] = []string{ttl.Round(time.Second).String()}
	}
	return publishExpecting(ctx, s.nc, m)
}

// publishExpecting publishes one message that says what it expects, and returns the sequence that the broker confirms.
func publishExpecting(ctx context.Context, nc *nats.Conn, m *nats.Msg) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	answer, err := nc.RequestMsgWithContext(ctx, m)
	if err != nil {
		return 0, fmt.Errorf("writing %s: %w", m.Subject, err)
	}
	var ack struct {
		Seq   uint64    `json:"seq"`
		Error *apiError `json:"error"`
	}
	switch err := json.Unmarshal(answer.Data, &ack); {
	case err != nil:
		return 0, fmt.Errorf("writing %s: the broker's confirmation: %w", m.Subject, err)
	case ack.Error != nil && ack.Error.ErrCode == codeWrongLastSequence:
		return 0, errConflict
	case ack.Error != nil && isCode(ack.Error, codeStreamFull, codeInsufficient, codeStorage):
		return 0, fmt.Errorf("%w: %w", errStateFull, ack.Error)
	case ack.Error != nil:
		return 0, ack.Error
	}
	return ack.Seq, nil
}

func (s *stateStore) keep(subject string, doc *stateDoc, seq uint64, size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(subject)
	size += len(subject) + cachedOverhead
	s.cache[subject] = s.order.PushFront(&cachedDoc{subject, doc, seq, size})
	s.bytes += size
	for s.bytes > stateCache && s.order.Len() > 1 {
		s.drop(s.order.Back().Value.(*cachedDoc).subject)
	}
}

func (s *stateStore) forget(subject string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(subject)
}

func (s *stateStore) drop(subject string) {
	if e, ok := s.cache[subject]; ok {
		s.bytes -= e.Value.(*cachedDoc).size
		s.order.Remove(e)
		delete(s.cache, subject)
	}
}

// scan all documents under a prefix, oldest first.
func (s *stateStore) scan(ctx context.Context, prefix string, each func(subject string, doc *stateDoc)) error {
	for from := uint64(1); ; {
		last, more, err := s.page(ctx, prefix, from, each)
		if err != nil || !more {
			return err
		}
		from = last + 1
	}
}

// page of a scan. last is the sequence of its last document.
func (s *stateStore) page(ctx context.Context, prefix string, from uint64, each func(string, *stateDoc)) (last uint64, more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	inbox := s.nc.NewInbox()
	sub, err := s.nc.SubscribeSync(inbox)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	ask := fmt.Sprintf(`{"seq":%d,"next_by_subj":%q,"batch":%d,"max_bytes":%d}`, from, prefix+">", scanPage, contract.MaxMessageSize)
	if err := s.nc.PublishRequest(contract.APIPrefix+".DIRECT.GET."+s.stream, inbox, []byte(ask)); err != nil {
		return 0, false, err
	}
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if errors.Is(err, nats.ErrNoResponders) {
			return 0, false, errNoState
		}
		if err != nil {
			return 0, false, fmt.Errorf("reading the documents of %s: %w", prefix, err)
		}
		switch status := first(m.Header, "Status"); status {
		case "":
		case "204", "404": // the end of the page, or nothing at all
			pending, _ := strconv.ParseUint(first(m.Header, "Nats-Num-Pending"), 10, 64)
			return last, status == "204" && last > 0 && pending > 0, nil
		default:
			return 0, false, fmt.Errorf("reading the documents of %s: %s %s", prefix, status, first(m.Header, "Description"))
		}
		if last, err = strconv.ParseUint(first(m.Header, headerSequence), 10, 64); err != nil {
			return 0, false, err
		}
		doc := &stateDoc{}
		if err := json.Unmarshal(m.Data, doc); err != nil {
			continue // none of ours can do anything with it
		}
		each(first(m.Header, headerSubject), doc)
	}
}
