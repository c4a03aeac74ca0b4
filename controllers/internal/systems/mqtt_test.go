package systems

import (
	"slices"
	"strings"
	"testing"

	"github.com/metip/metip/api/v1alpha1"
)

func TestMQTTIsChecked(t *testing.T) {
	at := v1alpha1.MQTTConnection{Servers: []string{"mqtts://a", "mqtts://b:1", "mqtts://c"}}
	source := func(topic, dead string) v1alpha1.ConnectorSpec {
		return v1alpha1.ConnectorSpec{Source: &v1alpha1.Source{MQTT: &v1alpha1.MQTTSource{Connection: at, Topics: []string{"x", topic}, DeadLetter: dead}}}
	}
	sink := func(p v1alpha1.MQTTPublish) v1alpha1.ConnectorSpec {
		return v1alpha1.ConnectorSpec{Sink: &v1alpha1.Sink{MQTT: &v1alpha1.MQTTSink{Connection: at, Publish: p}}}
	}
	for _, c := range []struct {
		want string
		spec v1alpha1.ConnectorSpec
	}{
		{"", source("doors/+/opened", "refused/doors")}, {"", source("doors/+", "doors")}, {"", source("#", "$dead")}, {"", source("doors/+", "doors/1/2")}, {"", source("#", "")},
		{"source.mqtt.deadLetter", source("#", "refused")}, {"source.mqtt.deadLetter", source("doors/#", "doors")}, {"source.mqtt.deadLetter", source("+/x", "a/x")},
		{"", sink(v1alpha1.MQTTPublish{Topic: "a/{data.b}", Properties: map[string]v1alpha1.Template{"x": "{data.y}"}})},
		{"sink.mqtt.publish.topic", sink(v1alpha1.MQTTPublish{Topic: "a/{"})},
		{"sink.mqtt.publish.properties[x]", sink(v1alpha1.MQTTPublish{Topic: "a", Properties: map[string]v1alpha1.Template{"x": "{data."}})},
	} {
		s, err := Of(&v1alpha1.Connector{Spec: c.spec})
		if err != nil {
			t.Fatal(err)
		}
		errs := s.Check()
		if c.want == "" && len(errs) > 0 || c.want != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), c.want)) {
			t.Errorf("%q: %v", c.want, errs)
		}
		if !slices.Equal(s.Ports, []int32{8883, 1}) {
			t.Errorf("ports %v", s.Ports)
		}
	}
	if c := (&v1alpha1.Connector{Spec: source("a", "")}); !Alone(c) {
		t.Error("one pod has the session")
	}
	plain := OperationOf(&v1alpha1.Operation{MQTT: &v1alpha1.MQTTPublish{Topic: "a", QoS: 2, Retain: true}})
	rich := OperationOf(&v1alpha1.Operation{MQTT: &v1alpha1.MQTTPublish{Topic: "a", Properties: map[string]v1alpha1.Template{"x": "y"}}})
	for version, fits := range map[v1alpha1.MQTTVersion]bool{"": true, "5": true, "3.1.1": false} {
		old := at
		old.Version = version
		s, err := Of(&v1alpha1.Connector{Spec: v1alpha1.ConnectorSpec{Sink: &v1alpha1.Sink{MQTT: &v1alpha1.MQTTSink{Connection: old, Publish: v1alpha1.MQTTPublish{Topic: "a"}}}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Fits(rich); (err == nil) != fits {
			t.Errorf("version %q, and properties: %v", version, err)
		}
		if err := s.Fits(plain); err != nil {
			t.Error(err)
		}
	}
}
