package stub

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

// Bounds of the options.
const (
	maxExamples = 64
	maxFaults   = 8
	maxLatency  = 5 * time.Minute
)

// options are the JSON of the API's StubService.
type options struct {
	// Examples that calls are answered from: the first one whose when holds. A call that none fits is answered 404.
	Examples []example `json:"examples"`
	// Latency of every answer whose example sets none.
	Latency *latency `json:"latency"`
	// Faults that are put in, each on its share of all calls.
	Faults []fault `json:"faults"`
}

// example is one answer.
type example struct {
	// Name for the documentation and for errors; optional.
	Name string `json:"name"`
	// When is a CEL expression that yields a boolean, over the request as steps see it: data, headers.method, headers.path, headers.query,
	// headers["query-<parameter>"], headers["http-<name>"]. Empty fits every call.
	When string `json:"when"`
	// Status in HTTP's numbers, 200 to 599; 0 means 200.
	Status int `json:"status"`
	// Headers of the answer: templates over the request, as `/people/{data.id}`. Content-Type is application/json unless it is
	// named here.
	Headers map[string]string `json:"headers"`
	// Body byte for byte, or JQ, a program that makes it of the request's body (with $message.headers, as a transform has). At most one.
	Body string `json:"body"`
	JQ   string `json:"jq"`
	// Latency of this answer.
	Latency *latency `json:"latency"`
}

// latency is evenly distributed between Min and Max, at most 5m. Max left out is Min.
type latency struct {
	Min *contract.Duration `json:"min"`
	Max *contract.Duration `json:"max"`
}

// fault is put in on Percent (1 to 100) of all calls: the answer has Status (200 to 599), or the call is dropped, so that the caller's time
// runs out.
type fault struct {
	Percent int  `json:"percent"`
	Status  int  `json:"status"`
	Drop    bool `json:"drop"`
}

// compiled is an example that is ready to be used.
type compiled struct {
	name        string
	when        *steps.Filter
	status      int
	contentType string
	headers     map[string]*steps.Template
	body        []byte
	jq          *steps.Transform
	latency     latencyRange
}

type latencyRange struct{ min, max time.Duration }

func decode(raw json.RawMessage) (o options, examples []compiled, err error) {
	if err = sdk.DecodeOptions(raw, &o); err != nil {
		return o, nil, err
	}
	if len(o.Examples) == 0 || len(o.Examples) > maxExamples {
		return o, nil, fmt.Errorf("there must be 1 to %d examples", maxExamples)
	}
	common, err := o.Latency.compile(latencyRange{})
	if err != nil {
		return o, nil, err
	}
	for i, e := range o.Examples {
		c, err := e.compile(common)
		if err != nil {
			return o, nil, fmt.Errorf("examples[%d]: %w", i, err)
		}
		if c.name == "" {
			c.name = fmt.Sprintf("examples[%d]", i)
		}
		examples = append(examples, c)
	}
	return o, examples, checkFaults(o.Faults)
}

func checkFaults(faults []fault) error {
	total := 0
	if len(faults) > maxFaults {
		return fmt.Errorf("there are more than %d faults", maxFaults)
	}
	for i, f := range faults {
		total += f.Percent
		switch {
		case f.Percent < 1 || f.Percent > 100:
			return fmt.Errorf("faults[%d]: percent must be between 1 and 100", i)
		case f.Drop == (f.Status != 0):
			return fmt.Errorf("faults[%d]: set exactly one of status and drop", i)
		case !f.Drop && (f.Status < 200 || f.Status > 599):
			return fmt.Errorf("faults[%d]: status must be between 200 and 599", i)
		}
	}
	if total > 100 {
		return fmt.Errorf("the faults' percent add up to %d", total)
	}
	return nil
}

func (e *example) compile(common latencyRange) (c compiled, err error) {
	c = compiled{name: e.Name, status: e.Status, contentType: "application/json"}
	if c.status == 0 {
		c.status = http.StatusOK
	}
	if c.status < 200 || c.status > 599 {
		return c, errors.New("status must be between 200 and 599")
	}
	if e.When != "" {
		if c.when, err = steps.CompileFilter(e.When); err != nil {
			return c, fmt.Errorf("when: %w", err)
		}
	}
	if e.Body != "" && e.JQ != "" {
		return c, errors.New("set at most one of body and jq")
	}
	if c.body = []byte(e.Body); e.JQ != "" {
		if c.jq, err = steps.CompileTransform(e.JQ); err != nil {
			return c, fmt.Errorf("jq: %w", err)
		}
	}
	for name, text := range e.Headers {
		if name = strings.ToLower(name); name == "content-type" {
			c.contentType = text
			continue
		}
		t, err := steps.CompileTemplate(text)
		if err != nil {
			return c, fmt.Errorf("headers: %s: %w", name, err)
		}
		if c.headers == nil {
			c.headers = map[string]*steps.Template{}
		}
		c.headers[name] = t
	}
	c.latency, err = e.Latency.compile(common)
	return c, err
}

// compile the range; what is left out is the common one.
func (l *latency) compile(common latencyRange) (latencyRange, error) {
	if l == nil {
		return common, nil
	}
	var r latencyRange
	if l.Min != nil {
		r.min = time.Duration(*l.Min)
	}
	r.max = r.min
	if l.Max != nil {
		r.max = time.Duration(*l.Max)
	}
	if r.min < 0 || r.max < r.min || r.max > maxLatency {
		return r, fmt.Errorf("latency must be 0 <= min <= max <= %s", maxLatency)
	}
	return r, nil
}
