package mqtt

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func TestFilters(t *testing.T) {
	for filter, valid := range map[string]bool{
		"a": true, "a/b": true, "/": true, "+": true, "#": true, "a/+/b": true, "a/#": true, "+/#": true, "$SYS/#": true,
		"": false, "a+": false, "a/#/b": false, "a#": false, "$share/g/a": false, "a\x00": false, strings.Repeat("a", maxTopic+1): false,
	} {
		if validFilter(filter) != valid {
			t.Errorf("%.20q: want %t", filter, valid)
		}
	}
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a/+", "a/b", true}, {"a/+", "a/b/c", false}, {"a/+", "a", false}, {"a/#", "a/b/c", true}, {"a/#", "a", true}, {"#", "a/b", true}, {"#", "$SYS/x", false}, {"+/b", "a/b", true},
	} {
		if matches(c.filter, c.topic) != c.want {
			t.Errorf("%s, %s: want %t", c.filter, c.topic, c.want)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct{ role, options, want string }{
		{"source", `"topics":["a/#"]`, ""},
		{"source", `"topics":["a/#"],"deadLetter":"b/x","share":"g","qos":2,"idProperty":"id"`, ""},
		{"source", `"topics":[]`, "topics"},
		{"source", `"topics":["a+"]`, "filter"},
		{"source", `"topics":["a/#"],"deadLetter":"a/x"`, "among the topics"},
		{"source", `"topics":["a"],"deadLetter":"b/#"`, "wildcards"},
		{"source", `"topics":["a"],"share":"a/b"`, "share"},
		{"source", `"topics":["a"],"qos":3`, "qos"},
		{"source", `"topics":["a"],"prefetch":5000`, "prefetch"},
		{"source", `"topics":["a"],"identity":"x"`, "identity"},
		{"source", `"topics":["a"],"sessionExpiry":"1s"`, "sessionExpiry"},
		{"old source", `"topics":["a"],"idProperty":"id"`, "3.1.1"},
		{"sink", `"topic":"a"`, ""},
		{"sink", `"topic":""`, "topic"},
		{"sink", `"topic":"a","qos":3`, "qos"},
		{"sink", `"topic":"a","expiration":"1ms"`, "expiration"},
		{"sink", `"topic":"a","properties":{"id":"x"}`, "property"},
		{"old sink", `"topic":"a","properties":{"x":"x"}`, "3.1.1"},
	} {
		var err error
		switch version := map[bool]string{true: `,"version":"3.1.1"`}[strings.HasPrefix(c.role, "old")]; {
		case strings.HasSuffix(c.role, "source"):
			_, err = decodeSource(json.RawMessage(`{"connection":{"servers":["mqtt://a"]` + version + `},` + c.options + `}`))
		default:
			_, err = decodePublish(json.RawMessage(`{`+c.options+`}`), version == "")
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v, want %q", c.role, c.options, err, c.want)
		}
	}
	for servers, want := range map[string]string{
		`["mqtts://a:1","mqtts://b"]`: "", `["mqtt://a","mqtts://b"]`: "all", `["tcp://a"]`: "mqtts://host:port", `["mqtt://u:p@a"]`: "mqtts://host:port", `[]`: "servers", `["mqtt://a"],"version":"3.1"`: "version", `["mqtt://a"],"keepAlive":"1h"`: "keepAlive",
	} {
		var o connectionOptions
		if err := sdk.DecodeOptions(json.RawMessage(`{"servers":`+servers+`}`), &o); err != nil {
			t.Fatal(err)
		}
		_, _, err := o.parse()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", servers, err, want)
		}
	}
}

// Reason codes say what becomes of the connector, and of a message.
func TestReasons(t *testing.T) {
	for code, want := range map[byte]string{
		0x86: contract.ReasonAuthenticationFailed, 0x87: contract.ReasonAuthenticationFailed, 0x8a: contract.ReasonAuthenticationFailed, 0x88: contract.ReasonConnectionFailed, 0x89: contract.ReasonConnectionFailed,
		0x8b: contract.ReasonConnectionFailed, 0x84: contract.ReasonSystemError, 0x85: contract.ReasonSystemError, 4: contract.ReasonAuthenticationFailed, 5: contract.ReasonAuthenticationFailed, 3: contract.ReasonConnectionFailed, 1: contract.ReasonSystemError, 0x7f: contract.ReasonSystemError,
	} {
		err := unavailable("mqtt://a:1883", connackError(&packet{code: code}, true))
		var u *sdk.UnavailableError
		if !errors.As(err, &u) || u.Reason != want || !strings.Contains(err.Error(), "mqtt://a:1883") {
			t.Errorf("%#x: %v, want %s", code, err, want)
		}
		if hint := strings.Contains(err.Error(), "3.1.1"); hint != (code == 0x84 || code == 1) {
			t.Errorf("%#x: %v", code, err)
		}
	}
	for code, want := range map[byte]string{
		0x80: "again", 0x83: "again", 0x97: "again", 0x91: "again", 0x87: "waits", 0x90: "never", 0x99: "never", 0x95: "never",
	} {
		err := judge("mqtt://a:1883", "a/b", reasonError(code, "because\nof this"))
		var u *sdk.UnavailableError
		got := "again"
		switch {
		case errors.As(err, &u):
			got = "waits"
		case sdk.IsPermanent(err):
			got = "never"
		}
		if got != want || !strings.Contains(err.Error(), "a/b") || !strings.Contains(err.Error(), fmt.Sprintf("0x%02x", code)) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%#x: %s: %v, want %s", code, got, err, want)
		}
	}
}
