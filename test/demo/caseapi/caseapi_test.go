package caseapi_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/metip/metip/test/demo/caseapi"
)

func put(t *testing.T, client *caseapi.Client, id, key, body string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, client.URL+"/cases/"+id, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+client.Token)
	request.Header.Set("Idempotency-Key", key)
	// on a kept connection Go's client would repeat the request itself
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return 0
	}
	_ = response.Body.Close()
	return response.StatusCode
}

func TestCases(t *testing.T) {
	server := httptest.NewServer(caseapi.NewServer(func() []string { return []string{"right"} }).Handler())
	defer server.Close()
	client := &caseapi.Client{URL: server.URL, Token: "right", HTTP: server.Client()}
	const good = `{"caseId": "C-1", "court": {"code": "NMM01"}}`

	for _, step := range []struct {
		what, id, key, body string
		mode                caseapi.Mode
		want                int
	}{
		{"new", "C-1", "k1", good, caseapi.ModeOK, http.StatusCreated},
		{"the same again", "C-1", "k1", good, caseapi.ModeOK, http.StatusOK},
		{"a change", "C-1", "k2", good, caseapi.ModeOK, http.StatusOK},
		{"not JSON", "C-1", "k3", "{", caseapi.ModeOK, http.StatusBadRequest},
		{"no court", "C-2", "k4", `{"caseId": "C-2", "court": {"code": null}}`, caseapi.ModeOK, http.StatusUnprocessableEntity},
		{"another path", "C-3", "k5", good, caseapi.ModeOK, http.StatusUnprocessableEntity},
		{"failing", "C-1", "k6", good, caseapi.ModeFail, http.StatusInternalServerError},
		{"busy", "C-1", "k6", good, caseapi.ModeBusy, http.StatusTooManyRequests},
		{"down", "C-1", "k6", good, caseapi.ModeDown, 0},
		{"hanging", "C-1", "k6", good, caseapi.ModeHang, 0},
		{"stored, then failing", "C-4", "k7", `{"caseId": "C-4", "court": {"code": "x"}}`, caseapi.ModeStoreThenFail, http.StatusInternalServerError},
	} {
		if err := client.SetMode(t.Context(), step.mode); err != nil {
			t.Fatal(err)
		}
		if got := put(t, client, step.id, step.key, step.body); got != step.want {
			t.Errorf("%s: got %d, want %d", step.what, got, step.want)
		}
	}

	stats, err := client.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := caseapi.Stats{Cases: 2, Requests: 11, Repeated: 1, Rejected: 3, Failed: 5, Mode: caseapi.ModeStoreThenFail}
	if diff := cmp.Diff(want, stats); diff != "" {
		t.Errorf("stats: %s", diff)
	}
	got, err := client.Case(t.Context(), "C-1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(caseapi.Case{CaseID: "C-1", Keys: []string{"k1", "k2"}, Requests: 3}, got, cmpopts.IgnoreFields(caseapi.Case{}, "Received", "Body")); diff != "" {
		t.Errorf("case: %s", diff)
	}

	wrong := &caseapi.Client{URL: server.URL, Token: "wrong", HTTP: server.Client()}
	if _, err := wrong.Stats(t.Context()); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("a wrong token got %v, want 401", err)
	}
	if err := client.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if cases, err := client.Cases(t.Context()); err != nil || len(cases) != 0 {
		t.Errorf("after a reset: %d cases, %v", len(cases), err)
	}
}

func TestEcho(t *testing.T) {
	server := httptest.NewServer(caseapi.NewServer(func() []string { return []string{"right"} }).Handler())
	defer server.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, server.URL+"/echo/a%2Fb?status=418&q=1", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer right")
	request.Header.Set(caseapi.EchoHeader, "again")
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var got caseapi.Echo
	if err := json.NewDecoder(response.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	want := caseapi.Echo{Method: http.MethodPatch, Path: "/echo/a%2Fb", Query: "status=418&q=1", Body: []byte("body"), From: "127.0.0.1"}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(caseapi.Echo{}, "Headers")); diff != "" || response.StatusCode != http.StatusTeapot || response.Header.Get(caseapi.EchoHeader) != "again" {
		t.Errorf("%s %v: %s", response.Status, response.Header, diff)
	}
}
