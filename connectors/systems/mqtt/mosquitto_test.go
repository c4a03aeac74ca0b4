package mqtt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/conformance/mosquittotest"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/intake"
)

const within = 60 * time.Second

var broker struct {
	once   sync.Once
	server *mosquittotest.Server
	err    error
	users  atomic.Int64
}

func TestMain(m *testing.M) {
	code := m.Run()
	if broker.server != nil {
		broker.server.Close()
	}
	os.Exit(code)
}

// place is a user with the topics below its name.
type place struct {
	*mosquittotest.Server
	name    string
	secrets *fakes.Secrets
}

func newPlace(t *testing.T) *place {
	t.Helper()
	broker.once.Do(func() { broker.server, broker.err = mosquittotest.Start() })
	if broker.err != nil {
		t.Fatal(broker.err)
	}
	p := &place{broker.server, fmt.Sprintf("user%d", broker.users.Add(1)), &fakes.Secrets{}}
	p.User(t, p.name, "password")
	p.secrets.Set(map[string]string{"username": p.name, "password": "password"})
	return p
}

func (p *place) runtime(t *testing.T) (sdk.Runtime, *contract.Config) {
	t.Helper()
	c := &contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}}
	return fakes.Runtime(t, c, p.secrets, nil), c
}

func (p *place) connection() map[string]any {
	return map[string]any{"servers": []string{fmt.Sprintf("mqtt://%s:%d", p.Host, p.PlainPort)}, "keepAlive": "6s"}
}

// read starts a source; it ends with stop, or the test.
func (p *place) read(t *testing.T, bus *fakes.Publisher, options map[string]any) (state *fakes.Reporter, stop func()) {
	t.Helper()
	runtime, c := p.runtime(t)
	c.Source = &contract.Source{EventType: "test", Format: sdk.FormatJSON}
	all := map[string]any{"connection": p.connection(), "topics": []string{p.name + "/#"}, "clientID": p.name}
	for name, value := range options {
		all[name] = value
	}
	source, err := NewSource(runtime, fakes.JSON(t, all))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	state = &fakes.Reporter{}
	done := make(chan error, 1)
	go func() { done <- source.Run(ctx, bus, state) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	fakes.Eventually(t, within, "the source says how it is", func() bool { _, reported := state.State(); return reported })
	return state, stop
}

func (p *place) publish(t *testing.T, messages ...*packets.Publish) {
	t.Helper()
	c := p.Connect(t, p.name+"-producer", false)
	c.Publish(t, messages...)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func (p *place) messages(from, to int) (all []*packets.Publish) {
	for i := from; i < to; i++ {
		all = append(all, &packets.Publish{Topic: p.name + "/door/" + strconv.Itoa(i%3), QoS: 1, Payload: []byte(`{"reading":20}`)})
	}
	return all
}

func stored(t *testing.T, bus *fakes.Publisher, n int) {
	t.Helper()
	fakes.Eventually(t, within, fmt.Sprintf("%d messages are on the bus", n), func() bool { return len(bus.Stored()) >= n })
	if got := len(bus.Stored()); got != n {
		t.Errorf("%d messages are on the bus, want %d", got, n)
	}
}

// Messages that are alike and have no id are told apart, and those that come again after the broker's crash are not taken for new ones.
func TestRedelivery(t *testing.T) {
	for _, qos := range []int{1, 2} {
		p, bus := newPlace(t), &fakes.Publisher{}
		state, _ := p.read(t, bus, map[string]any{"qos": qos})
		bus.Lose(errors.New("the broker breaks off"))
		messages := p.messages(0, 30)
		for _, m := range messages {
			m.QoS = byte(qos)
		}
		p.publish(t, messages...)
		fakes.Eventually(t, within, "it tries again", func() bool { return bus.Repeats() > 0 })
		p.Kill()
		fakes.Eventually(t, within, "the loss is noticed", func() bool { err, _ := state.State(); return err != nil })
		bus.Lose(nil)
		if err := p.Resume(); err != nil {
			t.Fatal(err)
		}
		fakes.Eventually(t, within, "the state is good", func() bool { err, _ := state.State(); return err == nil })
		p.publish(t, p.messages(30, 31)...)
		stored(t, bus, 31)
	}
}

// Connectors that name the same group have each its part.
func TestShare(t *testing.T) {
	p := newPlace(t)
	var buses [2]fakes.Publisher
	for i := range buses {
		p.read(t, &buses[i], map[string]any{"share": "group", "clientID": p.name + strconv.Itoa(i)})
	}
	p.publish(t, p.messages(0, 200)...)
	fakes.Eventually(t, within, "all are on the bus", func() bool { return len(buses[0].Stored())+len(buses[1].Stored()) >= 200 })
	a, b := len(buses[0].Stored()), len(buses[1].Stored())
	if a == 0 || b == 0 || a+b != 200 {
		t.Errorf("%d and %d messages", a, b)
	}
}

// What a Connector of a group was given while it was away is there when it is back: nothing is lost, and nothing comes twice.
func TestShareAway(t *testing.T) {
	p := newPlace(t)
	var buses [2]fakes.Publisher
	read := func(i int) func() {
		_, stop := p.read(t, &buses[i], map[string]any{"share": "group", "clientID": p.name + strconv.Itoa(i)})
		return stop
	}
	stop := read(0)
	read(1)
	p.publish(t, p.messages(0, 50)...)
	fakes.Eventually(t, within, "all are on the bus", func() bool { return len(buses[0].Stored())+len(buses[1].Stored()) >= 50 })
	stop()
	p.publish(t, p.messages(50, 150)...)
	fakes.Eventually(t, within, "the other works on", func() bool { return len(buses[1].Stored()) >= 50 })
	read(0)
	fakes.Eventually(t, within, "all are on the bus", func() bool { return len(buses[0].Stored())+len(buses[1].Stored()) >= 150 })
	if n := len(buses[0].Stored()) + len(buses[1].Stored()); n != 150 {
		t.Errorf("%d messages", n)
	}
}

// Where the broker says that another client has the session, it is not fought for. Mosquitto 2.0 does not say, and closes.
func TestTakenOver(t *testing.T) {
	r := &reader{source: &source{client: "door"}, link: &link{endpoint: "mqtt://a:1883"}}
	err := r.over(ended(&packet{kind: kindDisconnect, code: codeTakenOver}, nil))
	var held intake.HeldError
	var u *sdk.UnavailableError
	if !errors.As(err, &held) || !errors.As(err, &u) || u.Reason != contract.ReasonSystemError || !strings.Contains(err.Error(), "door") || !strings.Contains(err.Error(), "mqtt://a:1883") {
		t.Errorf("%v", err)
	}
	if err := r.over(ended(&packet{kind: kindDisconnect, code: codeShuttingDown}, nil)); errors.As(err, &held) || !errors.As(err, &u) || u.Reason != contract.ReasonConnectionFailed {
		t.Errorf("%v", err)
	}
}

// A retained message comes when a filter is new, and not whenever the source connects.
func TestRetained(t *testing.T) {
	for _, version := range []string{"5", "3.1.1"} {
		p, bus := newPlace(t), &fakes.Publisher{}
		p.publish(t, &packets.Publish{Topic: p.name + "/state", QoS: 1, Retain: true, Payload: []byte("{}")})
		connection := p.connection()
		connection["version"] = version
		state, _ := p.read(t, bus, map[string]any{"connection": connection})
		stored(t, bus, 1)
		if m := bus.Stored()[0]; m.Headers["retained"] != "true" || m.Headers["topic"] != p.name+"/state" {
			t.Errorf("%+v", m)
		}
		p.Kill()
		fakes.Eventually(t, within, "the loss is noticed", func() bool { err, _ := state.State(); return err != nil })
		if err := p.Resume(); err != nil {
			t.Fatal(err)
		}
		fakes.Eventually(t, within, "the state is good", func() bool { err, _ := state.State(); return err == nil })
		p.publish(t, p.messages(0, 1)...)
		stored(t, bus, 2)
	}
}

func TestQoS0(t *testing.T) {
	p, bus := newPlace(t), &fakes.Publisher{}
	state, _ := p.read(t, bus, nil)
	fakes.Eventually(t, within, "the state is good", func() bool { err, reported := state.State(); return reported && err == nil })
	c := p.Connect(t, p.name+"-producer", false)
	if got := c.Tell(t, &packets.Publish{Topic: p.name + "/a", Payload: []byte("{}")}); len(got) != 0 {
		t.Errorf("%d messages", len(got))
	}
	stored(t, bus, 1)
}

// What the bus can never take goes to the dead letters, and the next one is taken; where there are none, the source says which topic it waits at.
func TestDeadLetter(t *testing.T) {
	p, bus := newPlace(t), &fakes.Publisher{}
	dead := p.Connect(t, p.name+"-dead", true)
	dead.Subscribe(t, p.name+"/refused", 1)
	bad := &packets.Publish{Topic: p.name + "/door/1", QoS: 1, Payload: []byte("{"), Properties: &packets.Properties{ContentType: "text/x", User: []packets.User{{Key: "unit", Value: "7"}}}}
	_, stop := p.read(t, bus, map[string]any{"topics": []string{p.name + "/door/+"}, "deadLetter": p.name + "/refused"})
	p.publish(t, append([]*packets.Publish{bad}, p.messages(0, 1)...)...)
	stored(t, bus, 1)
	got := dead.Receive(t, true)
	if len(got) != 1 || string(got[0].Payload) != "{" || mosquittotest.Property(got[0], "unit") != "7" || mosquittotest.Property(got[0], "metip-error") == "" ||
		mosquittotest.Property(got[0], "metip-topic") != p.name+"/door/1" || got[0].Properties.ContentType != "text/x" {
		t.Errorf("%v", got)
	}
	stop()
	for _, body := range [][]byte{[]byte("{"), make([]byte, contract.MaxMessageSize+1)} {
		q := newPlace(t)
		state, stop := q.read(t, &fakes.Publisher{}, nil)
		q.publish(t, &packets.Publish{Topic: q.name + "/door/1", QoS: 1, Payload: body})
		fakes.Eventually(t, within, "the source stops", func() bool { err, _ := state.State(); return err != nil })
		err, _ := state.State()
		var u *sdk.UnavailableError
		if !errors.As(err, &u) || u.Reason != contract.ReasonSystemError || !strings.Contains(err.Error(), q.name+"/door/1") {
			t.Errorf("%v", err)
		}
		stop()
		c := q.Connect(t, q.name, true)
		if got := c.Receive(t, true); len(got) != 1 {
			t.Errorf("%d messages are left", len(got))
		}
	}
}

// What the user may not publish waits, and what is no topic never goes; others go out, though Mosquitto 2.0 closes the connection when it has refused one.
func TestForbidden(t *testing.T) {
	p := newPlace(t)
	runtime, c := p.runtime(t)
	c.Sink = &contract.Sink{}
	sink, err := NewSink(runtime, fakes.JSON(t, map[string]any{"connection": p.connection(), "publish": map[string]any{"topic": "{data.to}/x", "retain": true}}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sink.Close() })
	op, err := sink.Operation(nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	results := op.Write(ctx, []*sdk.Delivery{fakes.Delivery("1", `{"to":"a/#"}`), fakes.Delivery("2", `{"to":"secret"}`)})
	var u *sdk.UnavailableError
	if !sdk.IsPermanent(results[0]) || !errors.As(results[1], &u) || u.Reason != contract.ReasonAuthenticationFailed || !strings.Contains(u.Error(), "secret/x") {
		t.Errorf("%v", results)
	}
	fakes.Eventually(t, within, "another message goes out", func() bool {
		return op.Write(ctx, []*sdk.Delivery{fakes.Delivery("3", fmt.Sprintf(`{"to":%q}`, p.name))})[0] == nil
	})
	reader := p.Connect(t, p.name+"-reader", false)
	reader.Subscribe(t, p.name+"/#", 1)
	if got := reader.Receive(t, true); len(got) != 1 || !got[0].Retain || mosquittotest.Property(got[0], "id") != "3" {
		t.Errorf("%v", got)
	}
}
