package http

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/intake"
)

const (
	defaultPollInterval = time.Minute
	defaultPollTimeout  = 30 * time.Second
	// maxPollPause between two attempts while something is wrong; Retry-After may ask for more.
	maxPollPause = 30 * time.Second
	// suspendedPause between two looks at a source that is suspended.
	suspendedPause = 5 * time.Second
)

// pollOptions are the JSON of the API's HTTPPollSource.
type pollOptions struct {
	URL      string             `json:"url"`
	Interval *contract.Duration `json:"interval"`
	Timeout  *contract.Duration `json:"timeout"`
	Headers  map[string]string  `json:"headers"`
	Items    *itemOptions       `json:"items"`
}

// poll is a source that asks a system again and again.
type poll struct {
	// client authenticates and sends.
	client            *service
	rt                sdk.Runtime
	url               *url.URL
	interval, timeout time.Duration
	items             *items // nil: the answer as a whole is the message

	bus sdk.Publisher
	// at is how far the bus has come; nil while that is not known.
	at *pollPosition
	// last cursor of the list that is being read; empty at its beginning.
	last string
	// seen is the answer that had nothing new, so that the system can say in few words that nothing has changed.
	seen pollValidator
}

// NewPollSource makes a source of the JSON of the API's HTTPPollSource.
func NewPollSource(rt sdk.Runtime, raw json.RawMessage) (sdk.Source, error) {
	var o pollOptions
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	switch {
	case rt.Config.Source == nil:
		return nil, errors.New("the configuration has no source")
	case !rt.Config.Source.Position:
		return nil, errors.New("the configuration says that the source keeps no position")
	case rt.Config.Auth.Kind == contract.AuthHMAC:
		return nil, errors.New("a GET has no body to sign: use basic, bearer or anonymous")
	}
	target, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	if (target.Scheme != "http" && target.Scheme != "https") || target.Hostname() == "" || target.User != nil || target.Fragment != "" {
		return nil, errors.New("url must be http:// or https://, a host, and at most a path and a query")
	}
	base := *target
	base.RawQuery = ""
	pool, err := newSink(rt, &base, nil)
	if err != nil {
		return nil, err
	}
	p := &poll{rt: rt, url: target, interval: defaultPollInterval, timeout: defaultPollTimeout, client: &service{pool: pool, headers: http.Header{}}}
	for name, value := range o.Headers {
		if key := strings.ToLower(name); !headerName(key) || connectionHeaders[key] || key == "host" || key == "authorization" || checkAttribute(value) != nil {
			return nil, fmt.Errorf("headers: %q cannot be set, or not to this value", name)
		}
		p.client.headers[http.CanonicalHeaderKey(name)] = []string{value}
	}
	if o.Interval != nil {
		p.interval = time.Duration(*o.Interval)
	}
	if o.Timeout != nil {
		p.timeout = time.Duration(*o.Timeout)
	}
	if p.interval < time.Millisecond || p.timeout < time.Millisecond {
		return nil, errors.New("interval and timeout must be at least 1ms")
	}
	if o.Items != nil {
		if p.items, err = newItems(*o.Items, target); err != nil {
			return nil, err
		}
		if f := rt.Config.Source.Format; f != sdk.FormatJSON {
			return nil, fmt.Errorf("format %s: items are JSON", f)
		}
	}
	return p, nil
}

// errNotTaken: the bus has not taken what it was given, which is the engine's to report.
var errNotTaken = errors.New("the bus has not taken it")

// Run asks until the context ends.
func (p *poll) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	defer func() { _ = p.client.Close() }()
	p.bus = bus
	delay := backoff.NewExponentialBackOff()
	delay.InitialInterval, delay.MaxInterval = 200*time.Millisecond, max(min(p.interval, maxPollPause), time.Second)
	for {
		changed, wait := p.rt.Secrets.Changed(), p.interval
		err := p.round(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var after *sdk.RetryAfterError
		switch {
		case err == nil:
			state.System(nil)
			delay.Reset()
			changed = nil // it is used when the system is asked next
		case errors.Is(err, sdk.ErrSuspended):
			state.System(p.client.Check(ctx))
			wait = suspendedPause
		case errors.Is(err, sdk.ErrMoved):
			p.rt.Log.Info("begins at the position that another pod has stored")
			p.at, wait = nil, delay.NextBackOff()
		case errors.Is(err, errNotTaken):
			p.rt.Log.Info("what is new stays where it is for now", "error", err)
			wait = delay.NextBackOff()
		default:
			state.System(err)
			if wait = delay.NextBackOff(); errors.As(err, &after) {
				wait = max(wait, after.After)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			delay.Reset()
		case <-time.After(wait):
		}
	}
}

// round takes in everything that is new.
func (p *poll) round(ctx context.Context) error {
	if err := p.bus.Ready(); errors.Is(err, sdk.ErrSuspended) {
		return err
	}
	if p.at == nil {
		if err := p.load(ctx); err != nil {
			return err
		}
	}
	if p.items == nil {
		return p.whole(ctx)
	}
	return p.pages(ctx)
}

// publish messages, and what the position is then. What is on its way when the context ends may still settle.
func (p *poll) publish(ctx context.Context, at pollPosition, messages ...*sdk.Message) error {
	ctx, cancel := intake.Outlive(ctx)
	defer cancel()
	if len(messages) > 0 {
		if err := p.bus.Publish(ctx, messages...); err != nil {
			if errors.Is(err, sdk.ErrInvalid) {
				return err
			}
			return fmt.Errorf("%w: %w", errNotTaken, err)
		}
	}
	return p.store(ctx, at)
}

// systemErrorf is an error that somebody has to see to.
func (p *poll) systemErrorf(format string, a ...any) error {
	return sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: "+format, append([]any{p.client.pool.base}, a...)...))
}
