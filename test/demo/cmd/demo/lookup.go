package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/metip/metip/test/demo/flow"
	"github.com/metip/metip/test/demo/site"
)

// lookupsAtATime are few: the demo shows what a lookup takes, not how many the bus bears.
const lookupsAtATime = 4

// lookups are what custody has asked the court, over the bus.
type lookups struct {
	known, unknown string
	// answers to one lookup of either.
	answer, refusal flow.Answer
	took            []time.Duration
	problems        []string
}

// found is what the Route lets custody see of a case.
type found struct {
	CaseID          string    `json:"caseId"`
	ReceivedByCourt time.Time `json:"receivedByCourt"`
}

// ask the court for every case that it has received, and for one that it has not.
func (r *run) ask(ctx context.Context) error {
	cases, err := r.site.CaseAPI.Cases(ctx)
	if err != nil {
		return err
	}
	asker := &flow.Asker{HTTP: r.site.LookupDialer().HTTPClient(10 * time.Second), URL: "http://" + site.Lookup + site.LookupPath, Token: r.site.CustodyToken}
	answers := make([]flow.Answer, len(cases))
	group, all := errgroup.WithContext(ctx)
	group.SetLimit(lookupsAtATime)
	for i, c := range cases {
		group.Go(func() (err error) {
			answers[i], err = asker.Ask(all, http.MethodGet, "/cases/"+c.CaseID, nil, nil)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	l := &r.lookups
	for i, c := range cases {
		var f found
		a := answers[i]
		if err := json.Unmarshal(a.Body, &f); a.Status != http.StatusOK || err != nil || f.CaseID != c.CaseID || !f.ReceivedByCourt.Equal(c.Received) {
			l.problems = append(l.problems, fmt.Sprintf("looking up %s was answered %d: %.200s", c.CaseID, a.Status, a.Body))
		}
		l.took = append(l.took, a.Took)
	}
	slices.Sort(l.took)
	if line := r.example(); line != nil {
		l.known = line.CaseID()
	}
	l.unknown = "C-NM26-999999"
	if l.answer, err = asker.Ask(ctx, http.MethodGet, "/cases/"+l.known, nil, nil); err != nil {
		return err
	}
	if l.refusal, err = asker.Ask(ctx, http.MethodGet, "/cases/"+l.unknown, nil, nil); err != nil {
		return err
	}
	if l.refusal.Status != http.StatusNotFound {
		l.problems = append(l.problems, fmt.Sprintf("looking up %s, which the court does not have, was answered %d: %.200s", l.unknown, l.refusal.Status, l.refusal.Body))
	}
	r.say("custody has looked up %d cases at the court, over the bus", len(cases))
	return nil
}

// showLookups prints what was asked and answered.
func (r *run) showLookups() {
	l := &r.lookups
	url := "http://" + site.Lookup + site.LookupPath + "/cases/"
	fmt.Fprintf(r.out, "\nCustody asks the court what it holds, and gets the answer over the bus (request and reply, nothing is stored):\n")
	for _, ask := range []struct {
		id     string
		answer flow.Answer
	}{{l.known, l.answer}, {l.unknown, l.refusal}} {
		fmt.Fprintf(r.out, "  $ curl -H \"Authorization: Bearer $TOKEN\" %s%s\n    %d %s, after %s\n    %s\n",
			url, ask.id, ask.answer.Status, http.StatusText(ask.answer.Status), milliseconds(ask.answer.Took), indented(ask.answer.Body))
	}
	fmt.Fprintf(r.out, "All %d cases that the court has received were looked up: p50 %s, p99 %s.\n",
		len(l.took), milliseconds(flow.Quantile(l.took, 0.5)), milliseconds(flow.Quantile(l.took, 0.99)))
}

func indented(body []byte) string {
	var out bytes.Buffer
	if json.Indent(&out, body, "    ", "  ") != nil {
		return strings.TrimSpace(string(body))
	}
	return out.String()
}
