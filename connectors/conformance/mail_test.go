package conformance

import (
	"fmt"
	"maps"
	"strconv"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/conformance/mailtest"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// mails of a server by the number that their subject says.
func mails(t *testing.T, s *mailtest.Server) (order []int, ids map[int]map[string]bool) {
	t.Helper()
	taken, _ := s.Taken()
	ids = map[int]map[string]bool{}
	for _, m := range taken {
		n, err := strconv.Atoi(m.Header.Get("Subject"))
		if err != nil {
			t.Fatal(err)
		}
		order = append(order, n)
		if ids[n] == nil {
			ids[n] = map[string]bool{}
		}
		ids[n][m.Header.Get("Message-Id")] = true
	}
	return order, ids
}

func newMailSink(t *testing.T, encryption string) *SinkHarness {
	t.Helper()
	s, err := mailtest.Start(mailtest.Settings{Implicit: encryption == "Implicit"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	secrets := clientCertificate(t, s.CA)
	maps.Copy(secrets, map[string]string{contract.FileCA: s.CA.PEM, contract.FileUsername: mailtest.User, contract.FilePassword: mailtest.Password})
	return &SinkHarness{
		System: "mail",
		Options: fakes.JSON(t, map[string]any{
			"connection": map[string]any{"host": s.Host, "port": s.Port, "encryption": encryption},
			"send": map[string]any{
				"from": "Bus <bus@metip.example>", "to": []string{"{has(data.poison) ? 'nobody' : 'desk'}@court.example"}, "subject": "{data.id}",
				"headers": map[string]any{"X-Unit": "{data.id}"},
			},
		}),
		Config: contract.Config{
			Auth: contract.Auth{Kind: contract.AuthBasic, SecretName: "test-secret", Keys: []string{"username", "password"}},
			TLS:  &contract.TLS{CA: true, Certificate: true, CAFrom: "ConfigMap test-ca", CertificateFrom: "Secret test-secret"},
		},
		Secrets:          secrets,
		WrongCredentials: map[string]string{contract.FilePassword: "wrong-password"}, CheckKnowsCredentials: true,
		WrongCA: map[string]string{contract.FileCA: mustCA(t).PEM}, WrongCertificate: clientCertificate(t, mustCA(t)),
		Endpoint: fmt.Sprintf("%s:%d", s.Host, s.Port),
		Good:     message,
		Poison: func(i int) *sdk.Delivery {
			return fakes.Delivery(strconv.Itoa(i), fmt.Sprintf(`{"id":%d,"poison":true}`, i))
		},
		Stop: func(*testing.T) { s.Kill() },
		Start: func(t *testing.T) {
			t.Helper()
			if err := s.Resume(); err != nil {
				t.Fatal(err)
			}
		},
		Slow: func(*testing.T) func() { return s.Freeze() },
		Rotate: func(*testing.T) map[string]string {
			s.SetPassword("second-password")
			fresh := maps.Clone(secrets)
			fresh[contract.FilePassword] = "second-password"
			return fresh
		},
		AtLeastOnce: true,
		Effects: func(t *testing.T) map[int]int {
			t.Helper()
			effects := map[int]int{}
			order, _ := mails(t, s)
			for _, n := range order {
				effects[n]++
			}
			return effects
		},
		Identities: func(t *testing.T) map[int]int {
			t.Helper()
			counts := map[int]int{}
			_, ids := mails(t, s)
			for n, all := range ids {
				counts[n] = len(all)
			}
			return counts
		},
		Arrived: func(t *testing.T) []int {
			t.Helper()
			order, _ := mails(t, s)
			return order
		},
		Mapped: func(t *testing.T) (*sdk.Delivery, func(t *testing.T)) {
			t.Helper()
			d := message(1, 10)
			d.Subject = "person/17"
			d.Headers = map[string]string{contract.HeaderTraceParent: traceParent, contract.HeaderTraceState: "a=b", "correlationid": "c-1"}
			return d, func(t *testing.T) {
				t.Helper()
				taken, _ := s.Taken()
				if len(taken) != 1 {
					t.Fatalf("%d mails", len(taken))
				}
				for name, want := range map[string]string{
					"Metip-Id": d.ID, "Metip-Source": d.Source, "Metip-Type": d.Type, "Metip-Subject": "person/17", "Metip-Correlation-Id": "c-1", "Traceparent": traceParent,
					"Tracestate": "a=b", "Date": d.Time.Format(time.RFC1123Z), "X-Unit": "1", "Subject": "1", "From": `"Bus" <bus@metip.example>`, "To": "<desk@court.example>",
					"Auto-Submitted": "auto-generated",
				} {
					if got := taken[0].Header.Get(name); got != want {
						t.Errorf("%s is %q, want %q", name, got, want)
					}
				}
			}
		},
	}
}

func TestMailSink(t *testing.T) {
	Sinks(t, func(t *testing.T) *SinkHarness { t.Helper(); return newMailSink(t, "StartTLS") })
}

func TestMailSinkOverImplicitTLS(t *testing.T) {
	Sinks(t, func(t *testing.T) *SinkHarness { t.Helper(); return newMailSink(t, "Implicit") })
}
