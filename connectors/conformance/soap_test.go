package conformance

import (
	"context"
	"crypto/sha1" //nolint:gosec // what a PasswordDigest is made with
	"crypto/tls"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/certs"
	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// courtSystem is a SOAP system, written with nothing of ours: it knows a MessageID again, and asks for a UsernameToken.
type courtSystem struct {
	address string
	config  *tls.Config
	// modern: it speaks SOAP 1.2, and asks for a PasswordDigest, whose nonce it takes once.
	modern bool
	nonces map[string]bool

	mu       sync.Mutex
	password string
	known    map[string]bool
	effects  map[int]int
	traces   map[int]string
	seen     []string
	begun    int
	ended    int
	server   *http.Server
	slow     sync.RWMutex
}

// courtEnvelope is what it understands.
type courtEnvelope struct {
	XMLName xml.Name
	Header  struct {
		MessageID string     `xml:"http://www.w3.org/2005/08/addressing MessageID"`
		Token     courtToken `xml:"http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd Security>UsernameToken"`
	} `xml:"Header"`
	Body struct {
		Case *courtCase `xml:"urn:court SubmitCase"`
		Find *courtCase `xml:"urn:court FindPerson"`
	} `xml:"Body"`
}

type courtToken struct {
	Password string `xml:"Password"`
	Nonce    string `xml:"Nonce"`
	Created  string `xml:"http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd Created"`
}

func (s *courtSystem) namespace() string {
	if s.modern {
		return "http://www.w3.org/2003/05/soap-envelope"
	}
	return "http://schemas.xmlsoap.org/soap/envelope/"
}

// allows who sends a token. The caller holds the lock.
func (s *courtSystem) allows(t *courtToken) bool {
	if !s.modern {
		return t.Password == s.password
	}
	nonce, err := base64.StdEncoding.DecodeString(t.Nonce)
	if err != nil || s.nonces[t.Nonce] {
		return false
	}
	s.nonces[t.Nonce] = true
	at, err := time.Parse(time.RFC3339, t.Created)
	sum := sha1.Sum([]byte(string(nonce) + t.Created + s.password)) //nolint:gosec // as above
	return err == nil && time.Since(at).Abs() < 5*time.Minute && t.Password == base64.StdEncoding.EncodeToString(sum[:])
}

type courtCase struct {
	ID   string  `xml:"urn:court id"`
	V    *string `xml:"urn:court v"`
	Hang *string `xml:"urn:court hang"`
}

func (s *courtSystem) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.slow.RLock()
	defer s.slow.RUnlock()
	var e courtEnvelope
	if err := xml.Unmarshal(body, &e); err != nil || e.XMLName.Space != s.namespace() || e.XMLName.Local != "Envelope" {
		s.fault(w, "s:Client", fmt.Sprintf("%v, %v", e.XMLName, err))
		return
	}
	s.mu.Lock()
	s.seen = append(s.seen, r.URL.Path)
	allowed := s.allows(&e.Header.Token)
	s.mu.Unlock()
	switch {
	case !allowed:
		s.fault(w, "wsse:FailedAuthentication", "who are you?")
	case e.Body.Find != nil:
		s.find(w, r, e.Body.Find)
	default:
		s.submit(w, r, &e)
	}
}

func (s *courtSystem) submit(w http.ResponseWriter, r *http.Request, e *courtEnvelope) {
	if e.Body.Case == nil || e.Body.Case.V == nil {
		s.fault(w, "s:Client", "v is missing")
		return
	}
	id, err := strconv.Atoi(e.Body.Case.ID)
	if err != nil {
		s.fault(w, "s:Client", "id is no number")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known[e.Header.MessageID] {
		s.known[e.Header.MessageID] = true
		s.effects[id]++
		s.traces[id] = r.Header.Get("Traceparent") + " " + r.Header.Get("SOAPAction") + " " + r.Header.Get("Content-Type")
	}
	s.answer(w, "<SubmitCaseResponse xmlns='urn:court'/>")
}

func (s *courtSystem) find(w http.ResponseWriter, r *http.Request, c *courtCase) {
	if c.Hang == nil {
		size := 0
		if c.V != nil {
			size = len(*c.V)
		}
		s.answer(w, fmt.Sprintf("<c:FindPersonResponse xmlns:c='urn:court'><c:id>%s</c:id><c:size>%d</c:size></c:FindPersonResponse>", c.ID, size))
		return
	}
	s.mu.Lock()
	s.begun++
	s.mu.Unlock()
	<-r.Context().Done()
	s.mu.Lock()
	s.ended++
	s.mu.Unlock()
}

func (s *courtSystem) answer(w http.ResponseWriter, body string) {
	s.write(w, http.StatusOK, body)
}

func (s *courtSystem) fault(w http.ResponseWriter, code, reason string) {
	switch {
	case !s.modern:
		s.write(w, http.StatusInternalServerError, `<s:Fault><faultcode>`+code+`</faultcode><faultstring>`+reason+`</faultstring></s:Fault>`)
	case code == "s:Client":
		s.write(w, http.StatusBadRequest, `<s:Fault><s:Code><s:Value>s:Sender</s:Value></s:Code><s:Reason><s:Text xml:lang="en">`+reason+`</s:Text></s:Reason></s:Fault>`)
	default:
		s.write(w, http.StatusBadRequest, `<s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>`+code+`</s:Value></s:Subcode></s:Code><s:Reason><s:Text xml:lang="en">`+
			reason+`</s:Text></s:Reason></s:Fault>`)
	}
}

func (s *courtSystem) write(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	if s.modern {
		w.Header().Set("Content-Type", "application/soap+xml; charset=utf-8")
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `<s:Envelope xmlns:s="`+s.namespace()+`"><s:Body>`+body+`</s:Body></s:Envelope>`)
}

func (s *courtSystem) start(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	s.address = listener.Addr().String()
	server := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	s.mu.Lock()
	s.server = server
	s.mu.Unlock()
	go func() { _ = server.Serve(tls.NewListener(listener, s.config)) }()
}

func (s *courtSystem) stop() {
	s.mu.Lock()
	server := s.server
	s.mu.Unlock()
	_ = server.Close()
}

func (s *courtSystem) rotate(*testing.T) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.password = "second-password"
	return map[string]string{"password": "second-password"}
}

func newCourt(t *testing.T, modern bool) (*courtSystem, *certs.Authority) {
	t.Helper()
	ca, err := certs.New("court CA")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Pair(time.Now().Add(time.Hour), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	s := &courtSystem{
		address: "127.0.0.1:0", password: "first-password", modern: modern, nonces: map[string]bool{}, known: map[string]bool{}, effects: map[int]int{}, traces: map[int]string{},
		config: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, ClientCAs: ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert},
	}
	s.start(t)
	t.Cleanup(func() { s.stop() })
	return s, ca
}

func courtConfig() contract.Config {
	return contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}, TLS: &contract.TLS{CA: true, Certificate: true, CAFrom: "secret court-ca key ca.crt"}}
}

// soapMessage is message(i, size) as the court wants it.
func soapMessage(i, size int) *sdk.Delivery {
	return fakes.Delivery(strconv.Itoa(i), fmt.Sprintf(`{"SubmitCase":{"id":%d,"v":%q}}`, i, strings.Repeat("v", size)))
}

func newSOAP(t *testing.T) *SinkHarness {
	t.Helper()
	return soapSink(t, false, map[string]any{"security": "UsernameToken"}, ` "urn:court:SubmitCase" text/xml; charset=utf-8`)
}

func newSOAP12(t *testing.T) *SinkHarness {
	t.Helper()
	return soapSink(t, true, map[string]any{"security": "UsernameTokenDigest"}, `  application/soap+xml; charset=utf-8; action="urn:court:SubmitCase"`)
}

// soapSink calls a court; said is how it is told the action.
func soapSink(t *testing.T, modern bool, options map[string]any, said string) *SinkHarness {
	t.Helper()
	s, ca := newCourt(t, modern)
	call := map[string]any{"action": "urn:court:SubmitCase", "addressing": "Headers", "namespace": "urn:court"}
	if modern {
		call["version"] = "1.2"
	}
	options["url"], options["call"] = "https://"+s.address+"/cases", call
	return &SinkHarness{
		System:           "soap",
		Options:          fakes.JSON(t, options),
		Config:           courtConfig(),
		Secrets:          merged(clientCertificate(t, ca), map[string]string{"username": "bus", "password": "first-password", "ca.crt": ca.PEM}),
		WrongCertificate: clientCertificate(t, mustCA(t)),
		WrongCredentials: map[string]string{"password": "wrong-password"},
		WrongCA:          map[string]string{"ca.crt": mustCA(t).PEM},
		Endpoint:         "https://" + s.address,
		Good:             soapMessage,
		Slow:             func(*testing.T) func() { s.slow.Lock(); return s.slow.Unlock },
		Mapped: func(*testing.T) (*sdk.Delivery, func(t *testing.T)) {
			d := soapMessage(1, 10)
			d.Headers = map[string]string{contract.HeaderTraceParent: traceParent}
			return d, func(t *testing.T) {
				t.Helper()
				s.mu.Lock()
				defer s.mu.Unlock()
				if want := traceParent + said; s.traces[1] != want {
					t.Errorf("%s, want %s", s.traces[1], want)
				}
			}
		},
		Poison: func(i int) *sdk.Delivery {
			return fakes.Delivery(strconv.Itoa(i), fmt.Sprintf(`{"SubmitCase":{"id":%d}}`, i))
		},
		Stop:  func(*testing.T) { s.stop() },
		Start: s.start,
		Effects: func(*testing.T) map[int]int {
			s.mu.Lock()
			defer s.mu.Unlock()
			effects := make(map[int]int, len(s.effects))
			for id, n := range s.effects {
				effects[id] = n
			}
			return effects
		},
		Rotate: s.rotate,
	}
}

func TestSOAPSink(t *testing.T) { Sinks(t, newSOAP) }

func TestSOAP12Sink(t *testing.T) { Sinks(t, newSOAP12) }

func TestSOAPService(t *testing.T) {
	Services(t, func(t *testing.T) *ServiceHarness {
		t.Helper()
		s, ca := newCourt(t, false)
		count := func(of *int) func() int {
			return func() int {
				s.mu.Lock()
				defer s.mu.Unlock()
				return *of
			}
		}
		find := func(body string) *sdk.Request {
			return &sdk.Request{Message: sdk.Message{ID: "1", Data: []byte(body), ContentType: "application/json", Format: sdk.FormatJSON}, Method: http.MethodPost}
		}
		return &ServiceHarness{
			System: "soap",
			Options: fakes.JSON(t, map[string]any{
				"url": "https://" + s.address + "/persons", "security": "UsernameToken", "call": map[string]any{"namespace": "urn:court"},
			}),
			Config:   courtConfig(),
			Secrets:  merged(clientCertificate(t, ca), map[string]string{"username": "bus", "password": "first-password", "ca.crt": ca.PEM}),
			Endpoint: "https://" + s.address,
			Good: func(i, size int) *sdk.Request {
				return find(fmt.Sprintf(`{"FindPerson":{"id":%d,"v":%q}}`, i, strings.Repeat("v", size)))
			},
			Answers: func(i int, a *sdk.Answer) bool {
				return a.Status == http.StatusOK && strings.Contains(string(a.Data), fmt.Sprintf(`{"FindPersonResponse":{"id":"%d",`, i))
			},
			Hang:  func() *sdk.Request { return find(`{"FindPerson":{"id":1,"hang":""}}`) },
			Begun: count(&s.begun), Ended: count(&s.ended),
			Stop: func(*testing.T) { s.stop() }, Start: s.start,
			WrongCredentials: map[string]string{"password": "wrong-password"},
			WrongCA:          map[string]string{"ca.crt": mustCA(t).PEM},
			Rotate:           s.rotate,
			Seen: func() []string {
				s.mu.Lock()
				defer s.mu.Unlock()
				return append([]string(nil), s.seen...)
			},
		}
	})
}

func TestSOAPSource(t *testing.T) {
	Sources(t, func(*testing.T) *SourceHarness {
		return &SourceHarness{
			System: "soap", Options: []byte(`{"path":"/in","security":"UsernameToken"}`), Config: contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}},
			Secrets: map[string]string{"username": "custody", "password": "password-of-the-caller"}, Forgets: true,
			Offer: func(ctx context.Context, t *testing.T, r *SourceRun, i int) bool {
				status, err := postSOAP(ctx, r.Address, i)
				if err != nil {
					t.Error(err)
				}
				return status == http.StatusAccepted
			},
		}
	})
}

func postSOAP(ctx context.Context, address string, i int) (int, error) {
	const wsse = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"
	body := fmt.Sprintf(`<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Header>
		<a:MessageID xmlns:a="http://www.w3.org/2005/08/addressing">urn:case:%[1]d</a:MessageID>
		<w:Security xmlns:w="%[2]s" s:mustUnderstand="1"><w:UsernameToken><w:Username>custody</w:Username><w:Password>password-of-the-caller</w:Password></w:UsernameToken></w:Security>
		</s:Header><s:Body><Case><id>%[1]d</id></Case></s:Body></s:Envelope>`, i, wsse)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/in", strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", "text/xml; charset=utf-8")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}
