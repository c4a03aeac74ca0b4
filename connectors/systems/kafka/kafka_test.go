package kafka

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/conformance/kafkatest"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/binding"
)

func TestMain(m *testing.M) {
	kafkatest.Main()
	os.Exit(m.Run())
}

func headers(pairs ...string) (out []kgo.RecordHeader) {
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, kgo.RecordHeader{Key: pairs[i], Value: []byte(pairs[i+1])})
	}
	return out
}

var at = time.UnixMilli(1767322245006).UTC()

func testReceiver(format string) *receiver {
	return &receiver{Receiver: binding.Receiver{EventType: "custody.arrest", Marking: "OFFICIAL"}, format: format}
}

func TestMessageOfARecord(t *testing.T) {
	event := []string{"ce_specversion", "1.0", "ce_id", "e1", "ce_source", "/court", "ce_type", "custody.arrest.made"}
	for _, c := range []struct {
		name   string
		record kgo.Record
		want   sdk.Message
	}{
		{"plain", kgo.Record{Key: []byte("p:17"), Value: []byte("{}"), Headers: headers("Unit-ID", "6", "Unit-ID", "7", "metip-message-id", "x")},
			sdk.Message{ID: "9/1767322245006", Endpoint: "cases/3", PartitionKey: "p:17", ContentType: "application/json", Headers: map[string]string{"kafkatopic": "cases", "unitid": "7"}, Data: []byte("{}")}},
		{"removal", kgo.Record{Key: []byte{0xff}}, // which is no text
			sdk.Message{ID: "9/1767322245006", Endpoint: "cases/3", ContentType: "application/json", Headers: map[string]string{"kafkatopic": "cases"}, Data: []byte("null")}},
		{"an event", kgo.Record{Key: []byte("k"), Value: []byte("{}"), Headers: headers(append(event, "ce_partitionkey", "own", "ce_unit", "7", "content-type", "text/json", "ce_marking", "OFFICIAL")...)},
			sdk.Message{ID: "e1", Endpoint: "cases/event/%2Fcourt", Source: "/court", Type: "custody.arrest.made", PartitionKey: "own", ContentType: "text/json", Headers: map[string]string{"kafkatopic": "cases", "unit": "7"}, Data: []byte("{}")}},
	} {
		c.record.Topic, c.record.Partition, c.record.Offset, c.record.Timestamp, c.want.Time = "cases", 3, 9, at, at
		got, err := testReceiver(sdk.FormatJSON).message(&c.record)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", c.want) {
			t.Errorf("%s: %+v\nwant %+v", c.name, *got, c.want)
		}
	}
}

func TestRecordThatTheBusCannotTake(t *testing.T) {
	for want, record := range map[string]kgo.Record{
		"not JSON":           {Value: []byte("{")},
		"and the bus takes":  {Value: make([]byte, contract.MaxMessageSize+1)},
		"not each of":        {Value: []byte("{}"), Headers: headers("ce_id", "1")},
		"control characters": {Value: []byte("{}"), Headers: headers("ce_unit", "a\nb")},
		"marked":             {Value: []byte("{}"), Headers: headers("ce_marking", "SECRET")},
	} {
		if m, err := testReceiver(sdk.FormatJSON).message(&record); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v, %v, want %q", m, err, want)
		}
	}
}

func TestOptions(t *testing.T) {
	for want, raw := range map[string]string{
		"":                  `{"connection": {"servers": ["a", "b:1", "[::1]", "[::1]:9"]}, "topics": ["t"]}`,
		"1 to 16 servers":   `{"connection": {}, "topics": ["t"]}`,
		"is not host:port":  `{"connection": {"servers": [":9092"]}, "topics": ["t"]}`,
		"sasl":              `{"connection": {"servers": ["a"], "sasl": "GSSAPI"}, "topics": ["t"]}`,
		"encryption":        `{"connection": {"servers": ["a"], "encryption": "No"}, "topics": ["t"]}`,
		"1 to 64 topics":    `{"connection": {"servers": ["a"]}}`,
		"is no topic":       `{"connection": {"servers": ["a"]}, "topics": ["a b"]}`,
		"one of deadLetter": `{"connection": {"servers": ["a"]}, "topics": ["t"], "deadLetter": "t"}`,
		"neither Beginning": `{"connection": {"servers": ["a"]}, "topics": ["t"], "start": "Then"}`,
		"unknown field":     `{"connection": {"servers": ["a"]}, "topics": ["t"], "offset": 1}`,
	} {
		o, err := decodeSource(json.RawMessage(raw))
		if err == nil {
			_, err = o.Connection.parse()
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", raw, err, want)
		}
		if want == "" {
			if diff := cmp.Diff([]string{"a:9092", "b:1", "[::1]:9092", "[::1]:9"}, o.Connection.Servers); diff != "" {
				t.Errorf("servers (-want +got):\n%s", diff)
			}
		}
	}
	for want, raw := range map[string]string{
		"": `{"topic": "a.{data.unit}"}`, "topic is missing": `{}`, "no topic": `{"topic": "a b"}`, "set by the connector": `{"topic": "a", "headers": {"CE_id": "x"}}`,
	} {
		if _, err := decodeProduce(json.RawMessage(raw)); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", raw, err, want)
		}
	}
}

// run a source until the test is over.
func run(t *testing.T, s *kafkatest.Server, options map[string]any, bus *fakes.Publisher, state *fakes.Reporter) {
	t.Helper()
	cert, key, err := s.CA.Issue(time.Now().Add(time.Hour), "client")
	if err != nil {
		t.Fatal(err)
	}
	secrets := &fakes.Secrets{}
	secrets.Set(map[string]string{"username": "bus", "password": "first-password", "ca.crt": s.CA.PEM, contract.FileTLSCert: cert, contract.FileTLSKey: key})
	config := &contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}, TLS: &contract.TLS{CA: true, Certificate: true}}
	config.Source = &contract.Source{EventType: "case", Format: sdk.FormatJSON}
	source, err := NewSource(fakes.Runtime(t, config, secrets, nil), fakes.JSON(t, options))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- source.Run(t.Context(), bus, state) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// What is small in the cluster and large in memory comes a part at a time; what is too large at all is named.
func TestBatchesThatExpand(t *testing.T) {
	const records, size, inMemory = 64, 2 << 20, 48 << 20
	s := kafkatest.Start(t, "bus", "first-password")
	s.Create(t, "cases", 2)
	put := func(from, to, size int) {
		client := s.Client(t, kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerBatchMaxBytes(48<<20), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		defer client.Close()
		for i := from; i < to; i++ { // each in a batch of its own
			value := fmt.Appendf(nil, `{"id":%d%s}`, i, strings.Repeat(" ", size))
			if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "cases", Partition: int32(i % 2), Value: value}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(0, records, size)
	runtime.GC()
	var before, held runtime.MemStats
	runtime.ReadMemStats(&before)
	bus, state := &fakes.Publisher{}, &fakes.Reporter{}
	release := bus.Hold()
	run(t, s, map[string]any{"connection": map[string]any{"servers": []string{s.Address()}}, "topics": []string{"cases"}, "group": "bus"}, bus, state)
	fakes.Eventually(t, time.Minute, "the first are published", func() bool { now, _ := bus.Waiting(); return now > 0 })
	runtime.GC()
	runtime.ReadMemStats(&held)
	if grown := int64(held.HeapAlloc) - int64(before.HeapAlloc); grown > inMemory {
		t.Errorf("%d bytes are held at once, want %d at most", grown, inMemory)
	}
	release()
	fakes.Eventually(t, time.Minute, "all are on the bus", func() bool { return len(bus.Stored()) == records })
	if n := bus.Repeats(); n != 0 {
		t.Errorf("%d came twice", n)
	}
	if err, _ := state.State(); err != nil {
		t.Errorf("the state is %v", err)
	}
	put(records, records+1, maxExpandedBatch)
	fakes.Eventually(t, time.Minute, "the source names the batch", func() bool {
		err, _ := state.State()
		return err != nil && strings.Contains(err.Error(), "topic cases: partition 0: the batch at offset 32 expands to more than") && strings.Contains(err.Error(), "offset to 33")
	})
}

// What the bus can never take goes to the topic of dead letters, as it was, and the rest comes.
func TestDeadLetters(t *testing.T) {
	s := kafkatest.Start(t, "bus", "first-password")
	s.Create(t, "cases", 1)
	s.Create(t, "refused", 1)
	client := s.Client(t)
	defer client.Close()
	for _, value := range []string{`{"id":0}`, `{"id":`, `{"id":1}`} {
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "cases", Key: []byte("k"), Value: []byte(value), Headers: headers("unit", "7")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	options := map[string]any{"connection": map[string]any{"servers": []string{s.Address()}}, "topics": []string{"cases"}, "group": "bus"}
	bus, state := &fakes.Publisher{}, &fakes.Reporter{}
	run(t, s, options, bus, state)
	fakes.Eventually(t, time.Minute, "the source says what it waits at", func() bool {
		err, _ := state.State()
		return err != nil && strings.Contains(err.Error(), "topic cases, partition 0, offset 1 cannot be taken")
	})
	if n := len(bus.Stored()); n != 1 {
		t.Errorf("%d records are on the bus, want the one before it", n)
	}
	options["deadLetter"], options["group"] = "refused", "other"
	bus = &fakes.Publisher{}
	run(t, s, options, bus, &fakes.Reporter{})
	fakes.Eventually(t, time.Minute, "the others are on the bus", func() bool { return len(bus.Stored()) == 2 })
	dead := s.Records(t, "refused", 1)
	if len(dead) != 1 || string(dead[0].Value) != `{"id":` || string(dead[0].Key) != "k" {
		t.Fatalf("%d dead letters: %+v", len(dead), dead)
	}
	found := map[string]string{}
	for _, h := range dead[0].Headers {
		found[h.Key] = string(h.Value)
	}
	if found["unit"] != "7" || found["metip-dead-record"] != "cases/0/1" || !strings.Contains(found["metip-dead-reason"], "JSON") {
		t.Errorf("headers %v", found)
	}
}
