package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// audit reads the API server's audit log, which holds every request of one user, written before it is answered.
type audit struct {
	path   string
	offset int64
}

// writeAuditPolicy makes the API server log the requests of the user and of nobody else.
func writeAuditPolicy(dir, user string) (policy, log string, err error) {
	policy, log = filepath.Join(dir, "audit-policy.yaml"), filepath.Join(dir, "audit.log")
	text := fmt.Sprintf(`apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  users: [%q]
- level: None
`, user)
	return policy, log, os.WriteFile(policy, []byte(text), 0o600)
}

// requests of a stretch of the log.
type requests struct {
	// writes that are stored, by "verb resource", leases and events aside.
	writes         map[string]int
	leases, events int
	reads          int
	// refused writes (any status of 400 and above), among the others.
	refused int
}

// total of the writes that are neither leases nor events.
func (r requests) total() int {
	n := 0
	for _, c := range r.writes {
		n += c
	}
	return n
}

// add another stretch.
func (r *requests) add(o requests) {
	for k, n := range o.writes {
		r.writes[k] += n
	}
	r.leases, r.events, r.reads, r.refused = r.leases+o.leases, r.events+o.events, r.reads+o.reads, r.refused+o.refused
}

func (r requests) String() string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(r.writes)) {
		parts = append(parts, fmt.Sprintf("%s %d", k, r.writes[k]))
	}
	if len(parts) == 0 {
		parts = []string{"none"}
	}
	return fmt.Sprintf("%s; leases %d, events %d, reads %d, refused %d", strings.Join(parts, ", "), r.leases, r.events, r.reads, r.refused)
}

type auditEvent struct {
	Verb      string `json:"verb"`
	ObjectRef struct {
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
	} `json:"objectRef"`
	Stage          string `json:"stage"`
	ResponseStatus struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
}

// since the call before: what was requested.
func (a *audit) since() (r requests, err error) {
	r.writes = map[string]int{}
	f, err := os.Open(a.path)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Seek(a.offset, io.SeekStart); err != nil {
		return r, err
	}
	lines := bufio.NewReader(f)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			// An unfinished line is read again by the next call.
			return r, nil
		}
		if err != nil {
			return r, err
		}
		a.offset += int64(len(line))
		var e auditEvent
		if err := json.Unmarshal(line, &e); err != nil {
			return r, fmt.Errorf("audit log: %w", err)
		}
		r.count(e)
	}
}

func (r *requests) count(e auditEvent) {
	if e.Stage != "ResponseComplete" && e.Stage != "Panic" {
		return
	}
	switch e.Verb {
	case "create", "update", "patch", "delete", "deletecollection":
	default:
		r.reads++
		return
	}
	switch e.ObjectRef.Resource {
	case "leases":
		r.leases++
	case "events":
		r.events++
	case "subjectaccessreviews", "tokenreviews", "selfsubjectaccessreviews":
		// A question, which is stored nowhere.
		r.reads++
	default:
		resource := e.ObjectRef.Resource
		if e.ObjectRef.Subresource != "" {
			resource += "/" + e.ObjectRef.Subresource
		}
		r.writes[e.Verb+" "+resource]++
	}
	if e.ResponseStatus.Code >= 400 {
		r.refused++
	}
}
