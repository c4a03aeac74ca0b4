package mqtt

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"net/url"
	"slices"
	"strconv"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/binding"
)

// Names of the extension attributes that properties of MQTT become.
const (
	nameCorrelationID = "correlationid"
	nameReplyTo       = "replyto"
	nameTopic         = "topic"
	nameRetained      = "retained"
)

// receiver makes messages of PUBLISH packets.
type receiver struct {
	binding.Receiver
	format     string
	content    bool
	idProperty string
	memory     memory
}

func newReceiver(c *contract.Config, o sourceOptions) *receiver {
	return &receiver{
		Receiver: binding.Receiver{EventType: c.Source.EventType, Marking: c.Connector.Marking}, format: c.Source.Format, content: o.Identity == identityContent,
		idProperty: o.IDProperty, memory: memory{room: 2 * o.Prefetch, seed: maphash.MakeSeed(), known: map[uint16]known{}},
	}
}

// message of a packet. An error says why the bus can never take it.
func (r *receiver) message(p *packet) (*sdk.Message, error) {
	if p.skipped > 0 {
		return nil, fmt.Errorf("the body has about %d bytes, and the bus takes %d", p.skipped, contract.MaxMessageSize)
	}
	if err := sdk.CheckFormat(r.format, p.body); err != nil {
		return nil, err
	}
	m := &sdk.Message{Data: p.body, ContentType: p.contentType}
	if m.ContentType == "" || !binding.Printable(m.ContentType) {
		m.ContentType = binding.ContentType(r.format)
	}
	carried, err := attributesOf(p)
	if err != nil {
		return nil, err
	}
	event, err := r.Attributes(m, carried)
	if err != nil {
		return nil, err
	}
	binding.Trace(m, p.property(contract.HeaderTraceParent), p.property(contract.HeaderTraceState))
	if binding.Clean(p.topic) && len(p.topic) <= maxTopic {
		binding.Missing(m, nameTopic, p.topic)
	}
	binding.Missing(m, nameCorrelationID, string(p.correlation))
	binding.Missing(m, nameReplyTo, p.responseTopic)
	if p.retained() {
		binding.Missing(m, nameRetained, "true")
	}
	r.others(m, p, carried)
	r.identify(m, p, event)
	return m, nil
}

// property is the first user property of this name.
func (p *packet) property(name string) string {
	for _, u := range p.user {
		if u.name == name {
			return u.value
		}
	}
	return ""
}

// attributesOf a CloudEvent, if the user properties carry one: specversion says so.
func attributesOf(p *packet) (map[string]string, error) {
	if p.property("specversion") == "" {
		return nil, nil
	}
	carried := make(map[string]string, len(attributes))
	for _, u := range p.user {
		if !slices.Contains(attributes, u.name) {
			continue
		}
		if !binding.Clean(u.value) {
			return nil, fmt.Errorf("user property %.60q is no text of UTF-8 without control characters", u.name)
		}
		if _, given := carried[u.name]; !given {
			carried[u.name] = u.value
		}
	}
	return carried, nil
}

// others become extensions; of two that become one name the first by name counts, always the same.
func (r *receiver) others(m *sdk.Message, p *packet, carried map[string]string) {
	names := make([]string, 0, len(p.user))
	for _, u := range p.user {
		if _, attribute := carried[u.name]; !attribute && (len(u.name) < 6 || u.name[:6] != "metip-") {
			names = append(names, u.name)
		}
	}
	slices.Sort(names)
	for _, property := range names {
		if name, ok := binding.Extension(property); ok {
			binding.Missing(m, name, p.property(property))
		}
	}
}

// identify the message: by the CloudEvent's source and id, by what the producer calls it, or as the options say. Topics keep them apart.
func (r *receiver) identify(m *sdk.Message, p *packet, e binding.Event) {
	endpoint := binding.Short(url.PathEscape(p.topic))
	id := ""
	if r.idProperty != "" {
		id = p.property(r.idProperty)
	}
	switch {
	case e.ID != "":
		binding.Identify(m, e, endpoint)
	case id != "" && binding.Clean(id) && len(id) <= 512:
		m.ID, m.Endpoint = id, endpoint+"/id"
	case r.content:
		m.ID, m.Endpoint = digest(p), endpoint+"/content"
	default:
		m.ID, m.Endpoint = r.memory.id(p), endpoint+"/delivery"
	}
}

// digest of all that a producer has said: it is the same whenever the message is delivered.
func digest(p *packet) string {
	h := sha256.New()
	part := func(s string) { h.Write([]byte(strconv.Itoa(len(s)) + ":" + s)) }
	part(p.topic)
	part(p.contentType)
	part(p.responseTopic)
	part(string(p.correlation))
	part(strconv.Itoa(len(p.user)))
	for _, u := range p.user {
		part(u.name)
		part(u.value)
	}
	h.Write(p.body)
	return hex.EncodeToString(h.Sum(nil))
}

// memory of the ids that messages without one were given: the broker sends what it has no acknowledgement of again, marked so and with the same
// packet id. It goes with the pod, and with the session.
type memory struct {
	room  int
	seed  maphash.Seed
	known map[uint16]known
	order []uint16
}

type known struct {
	sum uint64
	id  string
}

func (m *memory) id(p *packet) string {
	if p.id == 0 {
		return rand.Text()
	}
	var h maphash.Hash
	h.SetSeed(m.seed)
	_, _ = h.WriteString(p.topic)
	_ = h.WriteByte(0)
	_, _ = h.Write(p.body)
	sum := h.Sum64()
	before, ok := m.known[p.id]
	if ok && p.duplicate() && before.sum == sum {
		return before.id
	}
	if !ok {
		if len(m.order) >= m.room {
			delete(m.known, m.order[0])
			m.order = append(m.order[:0], m.order[1:]...)
		}
		m.order = append(m.order, p.id)
	}
	id := rand.Text()
	m.known[p.id] = known{sum, id}
	return id
}

func (m *memory) forget() {
	clear(m.known)
	m.order = m.order[:0]
}
