package bus_test

import (
	"strings"
	"testing"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus/bustest"
)

// Trap: at the border between the accounts an answer without headers and body is the last one. A mark must not be such, or the sink whose
// pull it answers hears nothing more of that pull, neither messages nor its end.
func TestAMarkDoesNotEndThePullThatItAnswers(t *testing.T) {
	f := newFlow(t, bustest.Start(t, bustest.Options{}), quickTrim, streams("ns", "intg"))
	inbox := f.sink.NewInbox()
	answers, err := f.sink.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	next := contract.APIPrefix + ".CONSUMER.MSG.NEXT." + contract.EventStream("ns", "intg") + "." + contract.DurableName("ns", "route", "db")
	if err := f.sink.PublishRequest(next, inbox, []byte(`{"batch": 10, "expires": 5000000000}`)); err != nil {
		t.Fatal(err)
	}
	event := contract.EventSubject("ns", "intg", "src", 0, "x")
	for _, want := range []string{"evt.", "mark.", "evt."} {
		if want == "evt." {
			publish(t, f.source, event, 1)
		}
		got, err := answers.NextMsg(3 * time.Second)
		if err != nil {
			t.Fatalf("waiting for %s: %v", want, err)
		}
		if !strings.HasPrefix(got.Subject, want) {
			t.Fatalf("got %s %v, want %s", got.Subject, got.Header, want)
		}
	}
}
