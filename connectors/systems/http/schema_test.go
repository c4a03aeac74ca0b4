package http

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/metip/metip/connectors/sdk"
)

func TestSchemaProblem(t *testing.T) {
	p := busProblem(fmt.Errorf("%w: %w", sdk.ErrSchema, fmt.Errorf("/age breaks the rule maximum: 150")))
	w := httptest.NewRecorder()
	p.write(w)
	var body struct{ Title, Detail string }
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatal(err)
	}
	if want := "invalid message: the body does not follow the schema: /age breaks the rule maximum: 150"; w.Code != http.StatusUnprocessableEntity ||
		w.Header().Get("Content-Type") != "application/problem+json" || body.Detail != want {
		t.Errorf("%d %s %s", w.Code, w.Header(), w.Body)
	}
}
