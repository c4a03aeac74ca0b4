package http

import (
	"net/http"
	"testing"

	"github.com/metip/metip/connectors/sdk"
)

// TestHistoryIsToldToTheSystem, where the source asked for it.
func TestHistoryIsToldToTheSystem(t *testing.T) {
	for _, history := range []string{"", "custody;2026-11-23T10:00:00Z, arrests/court;2026-11-23T10:00:01Z"} {
		header, values := http.Header{}, singleValues{}
		setEventHeaders(header, &values, &sdk.Message{ID: "a", History: history})
		if got := header.Get("Metip-History"); got != history || history == "" && header["Metip-History"] != nil {
			t.Errorf("%q, want %q", got, history)
		}
	}
}
