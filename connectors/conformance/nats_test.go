package conformance

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/conformance/certs"
	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// personServer is a NATS server of somebody else's with a responder, which knows the server's own user.
type personServer struct {
	options server.Options
	server  *server.Server
}

func (s *personServer) start(t *testing.T) {
	t.Helper()
	o := s.options
	fresh, err := server.NewServer(&o)
	if err != nil {
		t.Fatal(err)
	}
	fresh.Start()
	if !fresh.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server does not start")
	}
	s.options.Port, s.server = fresh.Addr().(*net.TCPAddr).Port, fresh
	nc, err := nats.Connect("", nats.InProcessServer(fresh), nats.UserInfo("responder", "in-process"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if _, err := nc.Subscribe("persons", func(m *nats.Msg) {
		id, err := strconv.Atoi(strings.TrimPrefix(m.Header.Get("Metip-Path"), "/persons/"))
		if err != nil {
			return // it is never answered
		}
		_ = m.Respond(fmt.Appendf(nil, `{"id":%d,"size":%d}`, id, len(m.Data)))
	}); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

func (s *personServer) stop(*testing.T) {
	s.server.Shutdown()
	s.server.WaitForShutdown()
}

func newNATSService(t *testing.T) *ServiceHarness {
	t.Helper()
	ca, err := certs.New("court CA")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Pair(time.Now().Add(time.Hour), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	users := func(password string) []*server.User {
		return []*server.User{{Username: "bus", Password: password}, {Username: "responder", Password: "in-process"}}
	}
	s := &personServer{options: server.Options{
		Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true, MaxPayload: 16 << 20, MaxPending: 64 << 20, Users: users("first-password"),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, TLSTimeout: 5,
	}}
	s.start(t)
	t.Cleanup(func() { s.stop(t) })
	endpoint := fmt.Sprintf("tls://127.0.0.1:%d", s.options.Port)
	return &ServiceHarness{
		System: "nats", Options: fakes.JSON(t, map[string]any{"servers": []string{endpoint}, "subject": "persons"}),
		Config:           contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}, TLS: &contract.TLS{CA: true, CAFrom: "secret court-ca key ca.crt"}},
		Secrets:          map[string]string{"username": "bus", "password": "first-password", "ca.crt": ca.PEM},
		WrongCredentials: map[string]string{"password": "wrong-password"},
		WrongCA:          map[string]string{"ca.crt": mustCA(t).PEM},
		Endpoint:         endpoint,
		Good:             func(i, size int) *sdk.Request { return calling("POST", "/persons/"+strconv.Itoa(i), size) },
		Answers: func(i int, a *sdk.Answer) bool {
			var got struct{ ID int }
			return a.Status == 200 && json.Unmarshal(a.Data, &got) == nil && got.ID == i && a.Format == sdk.FormatJSON
		},
		Hang: func() *sdk.Request { return calling("GET", "/hang", 0) },
		Stop: s.stop, Start: s.start,
		Rotate: func(t *testing.T) map[string]string {
			t.Helper()
			o := s.options
			o.Users = users("second-password")
			if err := s.server.ReloadOptions(&o); err != nil {
				t.Fatal(err)
			}
			return map[string]string{"password": "second-password"}
		},
	}
}

func TestNATSService(t *testing.T) { Services(t, newNATSService) }
