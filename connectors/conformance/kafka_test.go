package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/conformance/kafkatest"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

const (
	kafkaTopic = "cases"
	kafkaGroup = "bus"
)

// kafkaSystem is a broker with a topic.
type kafkaSystem struct {
	*kafkatest.Server
	partitions int32
}

func newKafkaSystem(t *testing.T, partitions int32) *kafkaSystem {
	t.Helper()
	s := &kafkaSystem{kafkatest.Start(t, "bus", "first-password"), partitions}
	s.Create(t, kafkaTopic, partitions)
	return s
}

func (s *kafkaSystem) connection() map[string]any {
	return map[string]any{"servers": []string{s.Address()}, "encryption": "Required", "sasl": "SCRAM-SHA-512"}
}

func (s *kafkaSystem) config() contract.Config {
	return contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}, TLS: &contract.TLS{CA: true, Certificate: true, CAFrom: "secret kafka-ca key ca.crt"}}
}

func (s *kafkaSystem) secrets(t *testing.T) map[string]string {
	t.Helper()
	return merged(clientCertificate(t, s.CA), map[string]string{"username": s.User, "password": s.Password, "ca.crt": s.CA.PEM})
}

func (s *kafkaSystem) rotate(t *testing.T) map[string]string {
	t.Helper()
	s.SetPassword(t, "second-password")
	return map[string]string{"password": s.Password}
}

func (s *kafkaSystem) put(t *testing.T, from, to, size int, change func(*kgo.Record)) {
	t.Helper()
	client := s.Client(t)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	filler := strings.Repeat("x", size)
	var records []*kgo.Record
	for i := from; i < to; i++ {
		record := &kgo.Record{Topic: kafkaTopic, Key: []byte(strconv.Itoa(i)), Value: fmt.Appendf(nil, `{"id":%d,"v":%q}`, i, filler)}
		if change != nil {
			change(record)
		}
		records = append(records, record)
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func kafkaSource(partitions int32) func(t *testing.T) *PullHarness {
	return func(t *testing.T) *PullHarness {
		t.Helper()
		s := newKafkaSystem(t, partitions)
		return &PullHarness{
			System: "kafka", Options: fakes.JSON(t, map[string]any{"connection": s.connection(), "topics": []string{kafkaTopic}, "group": kafkaGroup}),
			Config: s.config(), Secrets: s.secrets(t),
			WrongCredentials: map[string]string{"password": "wrong-password"}, WrongCA: map[string]string{"ca.crt": mustCA(t).PEM},
			WrongCertificate: clientCertificate(t, mustCA(t)),
			Endpoint:         "kafka://" + s.Address(), Object: kafkaTopic,
			Put:    func(t *testing.T, from, to, size int) { t.Helper(); s.put(t, from, to, size, nil) },
			Left:   func(t *testing.T) int { t.Helper(); return s.Left(t, kafkaGroup, kafkaTopic, partitions) },
			Window: 512, Ordered: partitions == 1, Shared: partitions > 1,
			Stop: func(*testing.T) { s.Kill() }, Start: s.Boot, Rotate: s.rotate,
			Remove:  func(t *testing.T) { t.Helper(); s.Delete(t, kafkaTopic) },
			Restore: func(t *testing.T) { t.Helper(); s.Create(t, kafkaTopic, partitions) },
			Traced: func(t *testing.T, i int, traceparent string) {
				t.Helper()
				s.put(t, i, i+1, 10, func(r *kgo.Record) { r.Headers = []kgo.RecordHeader{{Key: "traceparent", Value: []byte(traceparent)}} })
			},
			Mapped: func(t *testing.T, i int) func(*testing.T, *sdk.Message) {
				t.Helper()
				at := time.Date(2026, 1, 2, 3, 4, 5, 6000000, time.UTC)
				s.put(t, i, i+1, 10, func(r *kgo.Record) {
					r.Timestamp, r.Key = at, []byte("person:17")
					r.Headers = []kgo.RecordHeader{{Key: "Unit-ID", Value: []byte("6")}, {Key: "Unit-ID", Value: []byte("7")}, {Key: "content-type", Value: []byte("application/vnd.arrest+json")}}
				})
				return func(t *testing.T, m *sdk.Message) {
					t.Helper()
					if !strings.HasSuffix(m.ID, "/"+strconv.FormatInt(at.UnixMilli(), 10)) || m.ContentType != "application/vnd.arrest+json" || !m.Time.Equal(at) || m.PartitionKey != "person:17" {
						t.Errorf("%+v", m)
					}
					if diff := cmp.Diff(map[string]string{"unitid": "7", "kafkatopic": kafkaTopic}, m.Headers); diff != "" {
						t.Errorf("headers (-want +got):\n%s", diff)
					}
				}
			},
		}
	}
}

func TestKafkaSource(t *testing.T) { PullSources(t, kafkaSource(1)) }

// Members of one group share the partitions.
func TestKafkaShared(t *testing.T) { pullShared(t, kafkaSource(4)(t)) }

func newKafkaSink(t *testing.T) *SinkHarness {
	t.Helper()
	s := newKafkaSystem(t, 1)
	return &SinkHarness{
		System: "kafka",
		Options: fakes.JSON(t, map[string]any{
			"connection": s.connection(), "compression": "Zstd",
			"produce": map[string]any{"topic": "{has(data.poison) ? data.missing : '" + kafkaTopic + "'}", "headers": map[string]any{"unit": "{data.id}"}},
		}),
		Config: s.config(), Secrets: s.secrets(t),
		WrongCredentials: map[string]string{"password": "wrong-password"}, CheckKnowsCredentials: true,
		WrongCA: map[string]string{"ca.crt": mustCA(t).PEM}, WrongCertificate: clientCertificate(t, mustCA(t)),
		Endpoint: "kafka://" + s.Address(),
		Good:     message,
		Poison: func(i int) *sdk.Delivery {
			return fakes.Delivery(strconv.Itoa(i), fmt.Sprintf(`{"id":%d,"poison":true}`, i))
		},
		Stop: func(*testing.T) { s.Kill() }, Start: s.Boot, Rotate: s.rotate,
		Slow:        func(*testing.T) func() { s.Freeze(); return s.Thaw },
		AtLeastOnce: true,
		Effects: func(t *testing.T) map[int]int {
			t.Helper()
			effects := map[int]int{}
			for _, r := range s.Records(t, kafkaTopic, 1) {
				effects[numberOf(t, r)]++
			}
			return effects
		},
		Identities: func(t *testing.T) map[int]int {
			t.Helper()
			ids := map[int]map[string]bool{}
			for _, r := range s.Records(t, kafkaTopic, 1) {
				n := numberOf(t, r)
				if ids[n] == nil {
					ids[n] = map[string]bool{}
				}
				ids[n][kafkaHeader(r, "metip-message-id")] = true
			}
			counts := map[int]int{}
			for n, all := range ids {
				counts[n] = len(all)
			}
			return counts
		},
		Mapped: func(t *testing.T) (*sdk.Delivery, func(t *testing.T)) {
			t.Helper()
			d := message(1, 10)
			d.Subject, d.PartitionKey = "person/17", "p:17"
			d.Headers = map[string]string{contract.HeaderTraceParent: traceParent, "station": "Bow Street"}
			return d, func(t *testing.T) {
				t.Helper()
				seen := s.Records(t, kafkaTopic, 1)
				if len(seen) != 1 || string(seen[0].Key) != "p:17" || !bytes.Equal(seen[0].Value, d.Data) || seen[0].Timestamp.UnixMilli() != d.Time.UnixMilli() {
					t.Fatalf("%d records, %+v", len(seen), seen)
				}
				for name, want := range map[string]string{
					"ce_specversion": "1.0", "ce_id": d.ID, "ce_source": d.Source, "ce_type": d.Type, "ce_subject": "person/17", "ce_partitionkey": "p:17", "ce_station": "Bow Street",
					"ce_time": d.Time.UTC().Format(time.RFC3339Nano), "traceparent": traceParent, "unit": "1", "content-type": "application/json",
				} {
					if got := kafkaHeader(seen[0], name); got != want {
						t.Errorf("%s is %q, want %q", name, got, want)
					}
				}
			}
		},
	}
}

func kafkaHeader(r *kgo.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

func numberOf(t *testing.T, r *kgo.Record) int {
	t.Helper()
	var body struct{ ID int }
	if err := json.Unmarshal(r.Value, &body); err != nil {
		t.Fatal(err)
	}
	return body.ID
}

func TestKafkaSink(t *testing.T) { Sinks(t, newKafkaSink) }
