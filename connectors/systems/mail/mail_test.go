package mail

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	netmail "net/mail"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/conformance/mailtest"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// bed is a sink on a server of its own.
type bed struct {
	*mailtest.Server
	secrets *fakes.Secrets
	sink    *sink
}

func newBed(t *testing.T, settings mailtest.Settings) *bed {
	t.Helper()
	server, err := mailtest.Start(settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Kill)
	b := &bed{Server: server, secrets: &fakes.Secrets{}}
	config := &contract.Config{Auth: contract.Auth{Kind: contract.AuthBasic, SecretName: "mail", Keys: []string{"username", "password"}}}
	if settings.None {
		config.Auth = contract.Auth{Kind: contract.AuthAnonymous}
	}
	values := map[string]string{contract.FileUsername: mailtest.User, contract.FilePassword: mailtest.Password}
	encryption := encryptDisabled
	if !settings.Plain {
		config.TLS = &contract.TLS{CA: true, Certificate: true}
		cert, key, err := server.CA.Issue(time.Now().Add(time.Hour), "client")
		if err != nil {
			t.Fatal(err)
		}
		values[contract.FileCA], values[contract.FileTLSCert], values[contract.FileTLSKey] = server.CA.PEM, cert, key
		if encryption = encryptStartTLS; settings.Implicit {
			encryption = encryptImplicit
		}
	}
	b.secrets.Set(values)
	made, err := NewSink(fakes.Runtime(t, config, b.secrets, nil), fakes.JSON(t, map[string]any{
		"connection": map[string]any{"host": server.Host, "port": server.Port, "encryption": encryption}, "send": map[string]any{},
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.Close() })
	b.sink = made.(*sink)
	return b
}

// anonymous is a bed without TLS and passwords.
func anonymous(t *testing.T) *bed {
	t.Helper()
	return newBed(t, mailtest.Settings{Plain: true, None: true})
}

func (b *bed) write(t *testing.T, send map[string]any, batch ...*sdk.Delivery) []error {
	t.Helper()
	all := map[string]any{"from": "bus@police.example", "to": []string{"desk@court.example"}, "subject": "s"}
	for name, value := range send {
		all[name] = value
	}
	op, err := b.sink.Operation(fakes.JSON(t, all))
	if err != nil {
		t.Fatal(err)
	}
	return op.Write(t.Context(), batch)
}

func (b *bed) wantTaken(t *testing.T, n int) []mailtest.Mail {
	t.Helper()
	taken, _ := b.Taken()
	if len(taken) != n {
		t.Fatalf("%d mails were taken, want %d", len(taken), n)
	}
	return taken
}

func TestNothingIsInjected(t *testing.T) {
	b := anonymous(t)
	for name, c := range map[string]struct {
		send map[string]any
		data string
	}{
		"a line end in the subject":      {map[string]any{"subject": "{data.x}"}, `{"x":"a\r\nBcc: evil@x.example"}`},
		"a line end in a header":         {map[string]any{"headers": map[string]any{"X-A": "{data.x}"}}, `{"x":"a\nb"}`},
		"a line end in an address":       {map[string]any{"to": []string{"{data.x}"}}, `{"x":"a@b.example\r\nRCPT TO:<evil@x.example>"}`},
		"two addresses in one":           {map[string]any{"to": []string{"{data.x}"}}, `{"x":"a@b.example, evil@x.example"}`},
		"a group":                        {map[string]any{"to": []string{"{data.x}"}}, `{"x":"all: a@b.example, evil@x.example;"}`},
		"an address in a name":           {map[string]any{"to": []string{"{data.x} <desk@court.example>"}}, `{"x":"<evil@x.example> ("}`},
		"an address before an address":   {map[string]any{"to": []string{"{data.x}@court.example"}}, `{"x":"evil@x.example,a"}`},
		"a second @":                     {map[string]any{"to": []string{"{data.x}@court.example"}}, `{"x":"evil@x.example"}`},
		"nothing":                        {map[string]any{"cc": []string{"{data.x}"}}, `{"x":""}`},
		"a path as file name":            {map[string]any{"attachment": map[string]any{"fileName": "{data.x}"}}, `{"x":"../../etc/passwd"}`},
		"a parameter in the file name":   {map[string]any{"attachment": map[string]any{"fileName": "{data.x}"}}, `{"x":"a\"; x=\"b"}`},
		"a line end in the file name":    {map[string]any{"attachment": map[string]any{"fileName": "{data.x}"}}, `{"x":"a\r\nb"}`},
		"a line end in the sender":       {map[string]any{"from": "{data.x}"}, `{"x":"a@b.example\r\nX: y"}`},
		"a subject longer than a line":   {map[string]any{"subject": "{data.x}"}, fmt.Sprintf(`{"x":%q}`, strings.Repeat("x", 2000))},
		"a value that is not there":      {map[string]any{"subject": "{data.y}"}, `{"x":1}`},
		"a sender that is two":           {map[string]any{"from": "{data.x}"}, `{"x":"a@b.example, c@d.example"}`},
		"an address that is too long":    {map[string]any{"to": []string{"{data.x}"}}, fmt.Sprintf(`{"x":"%s@b.example"}`, strings.Repeat("x", 300))},
		"a zero byte in the subject":     {map[string]any{"subject": "{data.x}"}, `{"x":"a\u0000b"}`},
		"a comment that is not closed":   {map[string]any{"to": []string{"{data.x} <desk@court.example>"}}, `{"x":"a ("}`},
		"a quote that is not closed":     {map[string]any{"to": []string{"{data.x} <desk@court.example>"}}, `{"x":"\""}`},
		"a header's line that is folded": {map[string]any{"headers": map[string]any{"X-A": "{data.x}"}}, `{"x":"a\r\n b"}`},
		"an address of a machine":        {map[string]any{"to": []string{"desk@{data.x}"}}, `{"x":"[10.0.0.1]"}`},
		"two addresses to answer to":     {map[string]any{"headers": map[string]any{"Reply-To": "{data.x}"}}, `{"x":"a@b.example, evil@x.example"}`},
		"an encoded line end":            {map[string]any{"to": []string{"{data.x}"}}, `{"x":"=?utf-8?q?a=0D=0AX:_b?= <a@b.example>"}`},
	} {
		if err := b.write(t, c.send, fakes.Delivery("1", c.data))[0]; !sdk.IsPermanent(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.wantTaken(t, 0)
}

func TestEnvelopeAndHeaders(t *testing.T) {
	b := anonymous(t)
	d := fakes.Delivery("1", `{"name":"Ærø Müller","court":"7"}`)
	send := map[string]any{
		"from": "Zoë <bus@police.example>", "to": []string{"{data.name} <desk{data.court}@court.example>"}, "cc": []string{"b@court.example"}, "bcc": []string{"secret@court.example"},
		"subject": "Arrest of {data.name}", "headers": map[string]any{"Reply-To": "Zoë <r{data.court}@police.example>"},
	}
	for range 2 {
		if err := b.write(t, send, d)[0]; err != nil {
			t.Fatal(err)
		}
	}
	other := *d
	other.Durable = "another"
	if err := b.write(t, send, &other)[0]; err != nil {
		t.Fatal(err)
	}
	taken := b.wantTaken(t, 3)
	m := taken[0]
	if got := fmt.Sprintf("%s %v %v", m.From, m.To, m.UTF8); got != "bus@police.example [desk7@court.example b@court.example secret@court.example] false" {
		t.Errorf("the envelope is %s", got)
	}
	if strings.Contains(string(m.Raw), "secret@") {
		t.Error("bcc is named")
	}
	var words mime.WordDecoder
	if got, err := words.DecodeHeader(m.Header.Get("Subject")); err != nil || got != "Arrest of Ærø Müller" {
		t.Errorf("subject %q: %v", got, err)
	}
	to, err := netmail.ParseAddress(m.Header.Get("To"))
	if err != nil || to.Name != "Ærø Müller" || to.Address != "desk7@court.example" {
		t.Errorf("to %v: %v", to, err)
	}
	reply, err := netmail.ParseAddress(m.Header.Get("Reply-To"))
	if err != nil || reply.Name != "Zoë" || reply.Address != "r7@police.example" {
		t.Errorf("reply to %v: %v", reply, err)
	}
	ids := []string{m.Header.Get("Message-Id"), taken[1].Header.Get("Message-Id"), taken[2].Header.Get("Message-Id")}
	if ids[0] == "" || ids[0] != ids[1] || ids[0] == ids[2] || !strings.HasSuffix(ids[0], "@police.example>") {
		t.Errorf("the ids are %v", ids)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(strings.NewReader(string(m.Raw[strings.Index(string(m.Raw), "\r\n\r\n")+4:]))))
	if err != nil || strings.TrimRight(string(body), "\r\n") != string(d.Data) {
		t.Errorf("body %q: %v", body, err)
	}
}

func TestHTMLAndAttachment(t *testing.T) {
	b := anonymous(t)
	d := fakes.Delivery("1", `{"name":"<script>"}`)
	err := b.write(t, map[string]any{"contentType": "HTML", "body": "<b>{data.name}</b>", "attachment": map[string]any{"fileName": "{data.name == '' ? '' : 'Akte ä.json'}"}}, d)[0]
	if err != nil {
		t.Fatal(err)
	}
	m := b.wantTaken(t, 1)[0]
	media, parameters, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || media != "multipart/mixed" {
		t.Fatal(media, err)
	}
	parsed, err := netmail.ReadMessage(strings.NewReader(string(m.Raw)))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(parsed.Body, parameters["boundary"])
	first, err := parts.NextPart()
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := io.ReadAll(first); strings.TrimRight(string(text), "\r\n") != "<b>&lt;script&gt;</b>" || !strings.HasPrefix(first.Header.Get("Content-Type"), "text/html") {
		t.Errorf("body %q %v", text, first.Header)
	}
	second, err := parts.NextPart()
	if err != nil {
		t.Fatal(err)
	}
	var words mime.WordDecoder
	name, err := words.DecodeHeader(second.FileName())
	if err != nil || name != "Akte ä.json" || !strings.HasPrefix(second.Header.Get("Content-Type"), "application/json") {
		t.Errorf("attachment %q %v: %v", name, second.Header, err)
	}
	if second.Header.Get("Content-Transfer-Encoding") != "base64" {
		t.Errorf("%v", second.Header)
	}
}

func TestBinaryNeedsAnAttachment(t *testing.T) {
	b := anonymous(t)
	d := fakes.Delivery("1", "\xff\xfe")
	d.Format, d.ContentType = sdk.FormatBinary, "application/octet-stream"
	if err := b.write(t, nil, d)[0]; !sdk.IsPermanent(err) {
		t.Errorf("%v", err)
	}
	if err := b.write(t, map[string]any{"attachment": map[string]any{"fileName": "x.bin"}}, d)[0]; err != nil {
		t.Error(err)
	}
	b.wantTaken(t, 1)
}

func TestAllRecipientsOrNone(t *testing.T) {
	b := anonymous(t)
	send := map[string]any{"to": []string{"desk@court.example", "nobody@court.example"}}
	err := b.write(t, send, fakes.Delivery("1", `{}`))[0]
	if !sdk.IsPermanent(err) || !strings.Contains(err.Error(), "5.1.1") || !strings.Contains(err.Error(), "<nobody@court.example>") {
		t.Errorf("%v", err)
	}
	b.wantTaken(t, 0)
	b.Refuse(func(to string) error {
		return &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 2, 1}, Message: "Greylisted"}
	}, nil)
	err = b.write(t, nil, fakes.Delivery("1", `{}`))[0]
	var down *sdk.UnavailableError
	if err == nil || sdk.IsPermanent(err) || errors.As(err, &down) || !strings.Contains(err.Error(), "4.2.1") {
		t.Errorf("%v", err)
	}
	b.Refuse(nil, nil)
	if err := b.write(t, nil, fakes.Delivery("1", `{}`))[0]; err != nil {
		t.Error(err)
	}
	if _, sessions := b.Taken(); sessions != 1 {
		t.Errorf("a refusal cost %d sessions", sessions)
	}
	b.wantTaken(t, 1)
}

func TestAnswersToTheContent(t *testing.T) {
	b := anonymous(t)
	code := 0
	b.Refuse(nil, func(m *mailtest.Mail) error {
		if m.Header.Get("Subject") == "1" {
			return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 7, 1}, Message: "No"}
		}
		return nil
	})
	for _, code = range []int{451, 452, 550, 554, 552} {
		results := b.write(t, map[string]any{"subject": "{data.id}"}, fakes.Delivery("0", `{"id":0}`), fakes.Delivery("1", `{"id":1}`), fakes.Delivery("2", `{"id":2}`))
		if results[0] != nil || results[2] != nil || results[1] == nil || sdk.IsPermanent(results[1]) != (code >= 500) || !strings.Contains(results[1].Error(), ".7.1") {
			t.Errorf("%d: %v", code, results)
		}
	}
	b.wantTaken(t, 10)
	if _, sessions := b.Taken(); sessions != 1 {
		t.Errorf("%d sessions", sessions)
	}
}

func TestSizeOfTheServerIsRespected(t *testing.T) {
	b := newBed(t, mailtest.Settings{Plain: true, None: true, MaxSize: 4096})
	results := b.write(t, nil, fakes.Delivery("0", `{"x":"`+strings.Repeat("x", 5000)+`"}`), fakes.Delivery("1", `{}`))
	if !sdk.IsPermanent(results[0]) || !strings.Contains(results[0].Error(), "the server takes 4096 (SIZE)") || results[1] != nil {
		t.Errorf("%v", results)
	}
	b.wantTaken(t, 1)
}

func TestInternationalAddresses(t *testing.T) {
	send := map[string]any{"to": []string{"müller@court.example"}}
	b := anonymous(t)
	if err := b.write(t, send, fakes.Delivery("1", `{}`))[0]; !sdk.IsPermanent(err) || !strings.Contains(err.Error(), "SMTPUTF8") {
		t.Errorf("%v", err)
	}
	b = newBed(t, mailtest.Settings{Plain: true, None: true, UTF8: true})
	for _, s := range []map[string]any{send, nil} {
		if err := b.write(t, s, fakes.Delivery("1", `{}`))[0]; err != nil {
			t.Error(err)
		}
	}
	if taken := b.wantTaken(t, 2); !taken[0].UTF8 || taken[1].UTF8 || taken[0].To[0] != "müller@court.example" {
		t.Errorf("%+v", taken)
	}
}

func TestWaysToAuthenticate(t *testing.T) {
	for _, mechanism := range []string{"PLAIN", "LOGIN", "SCRAM-SHA-256"} {
		for _, plain := range []bool{false, true} {
			b := newBed(t, mailtest.Settings{Mechanisms: []string{mechanism}, Plain: plain})
			err := b.sink.Check(t.Context())
			if wanted := !plain || mechanism == "SCRAM-SHA-256"; wanted != (err == nil) {
				t.Errorf("%s, without TLS %v: %v", mechanism, plain, err)
			}
			if err != nil {
				wantReason(t, err, contract.ReasonAuthenticationFailed)
				continue
			}
			b.SetPassword("another")
			b.sink.forget(b.sink.session)
			err = b.sink.Check(t.Context())
			wantReason(t, err, contract.ReasonAuthenticationFailed)
			if strings.Contains(err.Error(), mailtest.Password) {
				t.Errorf("the error has the password: %v", err)
			}
		}
	}
}

func wantReason(t *testing.T, err error, reason string) {
	t.Helper()
	var down *sdk.UnavailableError
	if !errors.As(err, &down) || down.Reason != reason {
		t.Errorf("%v, want %s", err, reason)
	}
}

func TestServerWithoutStartTLSIsRefused(t *testing.T) {
	server, err := mailtest.Start(mailtest.Settings{Plain: true, None: true})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Kill()
	config := &contract.Config{Auth: contract.Auth{Kind: contract.AuthAnonymous}}
	sink, err := NewSink(fakes.Runtime(t, config, &fakes.Secrets{}, nil), fakes.JSON(t, map[string]any{"connection": map[string]any{"host": server.Host, "port": server.Port}, "send": map[string]any{}}))
	if err != nil {
		t.Fatal(err)
	}
	err = sink.Check(t.Context())
	wantReason(t, err, contract.ReasonSystemError)
	if !strings.Contains(err.Error(), "STARTTLS") {
		t.Error(err)
	}
}

func TestConnectionIsClosedWhenIdleAndOpenedAgain(t *testing.T) {
	b := anonymous(t)
	for i := range 3 {
		if err := b.write(t, nil, fakes.Delivery("1", `{}`))[0]; err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			b.sink.rest()
			if b.sink.session != nil {
				t.Error("the connection is open")
			}
		}
	}
	if _, sessions := b.Taken(); sessions != 2 {
		t.Errorf("%d sessions", sessions)
	}
}

// A server ends connections that it has had for long: the next message notices, and costs no attempt.
func TestConnectionThatTheServerHasClosed(t *testing.T) {
	b := anonymous(t)
	for range 3 {
		if err := b.write(t, nil, fakes.Delivery("1", `{}`))[0]; err != nil {
			t.Fatal(err)
		}
		b.Kill()
		if err := b.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.sink.Check(t.Context()); err != nil {
		t.Error(err)
	}
	b.wantTaken(t, 3)
}

func TestOptionsThatAreRefused(t *testing.T) {
	for _, raw := range []string{
		`{}`, `{"from":"a@b","subject":"s"}`, `{"from":"a@b","to":["c@d"],"contentType":"PDF"}`, `{"from":"a@b","to":["c@d"],"attachment":{}}`,
		`{"from":"a@b","to":["c@d"],"headers":{"Bcc":"x"}}`, `{"from":"a@b","to":["c@d"],"headers":{"Content-Type":"x"}}`, `{"from":"a@b","to":["c@d"],"headers":{"A: b\r\nC":"x"}}`,
		`{"from":"a@b","to":["c@d"],"password":"x"}`,
	} {
		if o, err := decodeSend([]byte(raw)); err == nil {
			t.Errorf("%s: %+v", raw, o)
		}
	}
}
