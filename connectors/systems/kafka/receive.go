package kafka

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/binding"
)

const (
	// eventPrefix of the headers that carry a CloudEvent, as its binding for Kafka has it.
	eventPrefix       = "ce_"
	headerContentType = "content-type"
	// nameTopic of the extension that a record's topic becomes.
	nameTopic = "kafkatopic"
	// maxKey that becomes a partition key, in bytes.
	maxKey = 256
)

// receiver makes messages of records.
type receiver struct {
	binding.Receiver
	format string
}

// message of a record. An error says why the bus can never take it.
func (r *receiver) message(record *kgo.Record) (*sdk.Message, error) {
	data := record.Value
	if data == nil && r.format == sdk.FormatJSON {
		data = []byte("null") // a record without value removes a key
	}
	if len(data) > contract.MaxMessageSize {
		return nil, fmt.Errorf("the value has %d bytes, and the bus takes %d", len(data), contract.MaxMessageSize)
	}
	if err := sdk.CheckFormat(r.format, data); err != nil {
		return nil, err
	}
	m := &sdk.Message{Data: data, Time: record.Timestamp.UTC()}
	attributes, others, err := split(record.Headers)
	if err != nil {
		return nil, err
	}
	event, err := r.Attributes(m, attributes)
	if err != nil {
		return nil, err
	}
	if m.ContentType = others[headerContentType]; m.ContentType == "" || !binding.Printable(m.ContentType) {
		m.ContentType = binding.ContentType(r.format)
	}
	binding.Trace(m, others[contract.HeaderTraceParent], others[contract.HeaderTraceState])
	binding.Missing(m, nameTopic, record.Topic)
	names := make([]string, 0, len(others))
	for name := range others {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		lower := strings.ToLower(name)
		if extension, ok := binding.Extension(name); ok && lower != headerContentType && !strings.HasPrefix(lower, "metip-") {
			binding.Missing(m, extension, others[name])
		}
	}
	if key := string(record.Key); m.PartitionKey == "" && key != "" && len(key) <= maxKey && binding.Clean(key) {
		m.PartitionKey = key
	}
	if event.ID != "" {
		binding.Identify(m, event, record.Topic)
		return m, nil
	}
	// Its place, and the time with it: a topic that is made anew counts from zero again.
	m.ID = strconv.FormatInt(record.Offset, 10) + "/" + strconv.FormatInt(record.Timestamp.UnixMilli(), 10)
	m.Endpoint = record.Topic + "/" + strconv.Itoa(int(record.Partition))
	return m, nil
}

// split headers into the attributes of an event and others. Of several with one name the last counts, as Kafka has it.
func split(headers []kgo.RecordHeader) (attributes, others map[string]string, err error) {
	others = make(map[string]string, len(headers))
	for _, h := range headers {
		value := string(h.Value)
		attribute, ok := strings.CutPrefix(h.Key, eventPrefix)
		if !ok || attribute == "" {
			others[h.Key] = value
			continue
		}
		if !binding.Clean(value) {
			return nil, nil, fmt.Errorf("header %.60q is no text of UTF-8 without control characters", h.Key)
		}
		if attributes == nil {
			attributes = make(map[string]string, 8)
		}
		attributes[attribute] = value
	}
	return attributes, others, nil
}
