package soap

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// fixture is an envelope in the style of a product that such organisations have.
func fixture(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestEnvelopesOfProducts(t *testing.T) {
	m, err := newMapping(mappingOptions{
		Namespace: "urn:police:custody:1", Arrays: []string{"Charge"},
		Prefixes: map[string]string{"p": "urn:police:person:2", "court": "urn:court:cases:3", "doc": "urn:court:documents:1", "v": "urn:transport:vehicles"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		file    string
		version version
		id      string
		json    string
	}{
		{"custody-digest-1.1.xml", version11, "", `{"RegisterArrest":{"ArrestId":"2026-000017","Person":{"p:Surname":"O'Neill & Søn","p:Born":"1990-02-28"},"Charge":[{"@scheme":"national","#text":"Theft"}]}}`},
		{"court-addressing-1.2.xml", version12, "urn:uuid:0f3b7a52-9d5e-4d29-9a40-6a1f0f6c9e11",
			`{"court:Submit":{"court:case":{"doc:Document":[{"doc:Content":"JVBERi0xLjc="},""],"court:Judge":{"@xsi:nil":"true"},"court:Note":"sealed <until> hearing"}}}`},
		{"court-signed-1.1.xml", version11, "", `{"court:CloseCase":{"court:CaseReference":"T-17/2026"}}`},
		{"register-rpc-1.1.xml", version11, "", `{"v:findVehicle":{"plate":{"@xsi:type":"xsd:string","#text":"ÅB 12"},"max":{"@xsi:type":"xsd:int","#text":"5"}}}`},
	} {
		e, err := parse(fixture(t, c.file), "")
		if err != nil {
			t.Errorf("%s: %v", c.file, err)
			continue
		}
		got, err := m.toJSON(e.payload)
		if err != nil || string(got) != c.json || e.version != c.version || e.text(nsAddress, "MessageID") != c.id {
			t.Errorf("%s: version %d, id %s, %s, %v", c.file, e.version, e.text(nsAddress, "MessageID"), got, err)
		}
		// The payload stands by itself, and says the same in an envelope of the other version.
		again, err := parse(build(version12, nil, e.payload), "")
		if err != nil {
			t.Errorf("%s: %v", c.file, err)
			continue
		}
		if same, err := m.toJSON(again.payload); err != nil || string(same) != c.json {
			t.Errorf("%s: has become %s, %v", c.file, same, err)
		}
	}
}

func TestFaultsOfProducts(t *testing.T) {
	for file, want := range map[string]struct {
		codes  string
		blame  blame
		reason string
	}{
		"register-fault-1.1.xml": {"Server", blameReceiver, "Timeout expired"},
		"court-fault-1.2.xml":    {"Sender.Validation.UnknownCourt", blameSender, "unknown court"},
	} {
		e, err := parse(fixture(t, file), "")
		if err != nil || e.fault == nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if f := e.fault; f.codes() != want.codes || f.blame() != want.blame || !strings.Contains(f.reason, want.reason) || strings.Contains(f.Error(), "\n") {
			t.Errorf("%s: %s", file, f)
		}
	}
}

func TestTokensOfProducts(t *testing.T) {
	sent := time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC)
	for _, c := range []struct {
		file string
		at   time.Time
		code string
	}{
		{"custody-digest-1.1.xml", sent, ""},
		{"court-addressing-1.2.xml", sent, ""},
		{"court-addressing-1.2.xml", sent.Add(9 * time.Minute), ""}, // within what clocks may differ
		{"court-addressing-1.2.xml", sent.Add(11 * time.Minute), "MessageExpired"},
		{"court-addressing-1.2.xml", sent.Add(-6 * time.Minute), "InvalidSecurity"},
		{"court-signed-1.1.xml", sent, "UnsupportedSecurityToken"},
		{"register-rpc-1.1.xml", sent, "InvalidSecurity"},
	} {
		e, err := parse(fixture(t, c.file), "")
		if err != nil {
			t.Fatalf("%s: %v", c.file, err)
		}
		secrets := &fakes.Secrets{}
		secrets.Set(map[string]string{contract.FileUsername: "custody", contract.FilePassword: "s3cr&t"})
		g := &gate{rt: sdk.Runtime{Secrets: secrets, Config: &contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}}}}
		f := g.check(e, c.at)
		code := ""
		if f != nil {
			code = f.subcodes[0]
		}
		if code != c.code {
			t.Errorf("%s at %s: %v, want %q", c.file, c.at, f, c.code)
		}
	}
}

// A time that is none lets nobody in, however the rest of the token is.
func TestTimestampThatIsNone(t *testing.T) {
	text := strings.Replace(string(fixture(t, "court-addressing-1.2.xml")), "2026-01-02T03:09:05.001Z", "tomorrow", 1)
	e, err := parse([]byte(text), "")
	if err != nil {
		t.Fatal(err)
	}
	if f := newGate(false).check(e, time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC)); f == nil || f.subcodes[0] != "InvalidSecurity" {
		t.Error(f)
	}
}

func TestAttachmentsAreRefused(t *testing.T) {
	l := listen(t, contract.Config{}, `{}`)
	r := l.send(t, http.MethodPost, "/", `multipart/related; type="application/xop+xml"; start="<root>"; boundary="uuid:7c"`, "", string(fixture(t, "register-mtom.txt")))
	if f := r.fault(t); r.status != http.StatusUnsupportedMediaType || !strings.Contains(f.reason, "MTOM") {
		t.Errorf("%d %s", r.status, r.body)
	}
	if n := len(l.bus.Stored()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// What is not confirmed may come again as it is, and is stored once by its MessageID; what was taken may not come again.
func TestRefusedRequestMayComeAgain(t *testing.T) {
	l := listen(t, contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic}}, `{"security":"UsernameTokenDigest"}`)
	header := append(account{"custody", "first-password"}.token(true, time.Now()), `<a:MessageID xmlns:a="`+nsAddress+`">urn:uuid:17</a:MessageID>`...)
	envelope := string(build(version11, header, []byte("<a/>")))
	send := func() reply { return l.send(t, http.MethodPost, "/", "text/xml", "", envelope) }
	l.bus.Lose(errors.New("the connection is gone"))
	for range 2 {
		if r := send(); r.status != http.StatusServiceUnavailable {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	l.bus.Lose(nil)
	if r := send(); r.status != http.StatusAccepted {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := send(); !strings.Contains(r.body, "was sent before") || len(l.bus.Stored()) != 1 {
		t.Errorf("%d messages, %d %s", len(l.bus.Stored()), r.status, r.body)
	}
}

// An answer goes back over the connection, so a caller that wants it elsewhere is told.
func TestAnswersElsewhereAreRefused(t *testing.T) {
	send := func(options, to string) reply {
		header := `<a:ReplyTo xmlns:a="` + nsAddress + `"><a:Address>` + to + `</a:Address></a:ReplyTo>`
		return listen(t, contract.Config{}, options).send(t, http.MethodPost, "/", "application/soap+xml", "", envelope12(header, "<a/>"))
	}
	const answered = `{"response":"<ok/>"}`
	if r := send(answered, "https://elsewhere.example/"); r.status != http.StatusBadRequest || !strings.Contains(r.fault(t).reason, "ReplyTo") {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := send(answered, nsAddress+"/anonymous"); r.status != http.StatusOK {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := send(`{}`, "https://elsewhere.example/"); r.status != http.StatusAccepted {
		t.Errorf("there is nothing to answer: %d %s", r.status, r.body)
	}
}
