package custom

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	systemhttp "github.com/metip/metip/connectors/systems/http"
)

// checkEvery is how often the container is asked whether its system works.
const checkEvery = 2 * time.Second

// source takes in what the container posts, as an HTTP source does, and asks it for the state of its system.
type source struct {
	inner     sdk.Source
	container *container
}

// NewSource makes a source of the JSON of the API's CustomSource.
func NewSource(rt sdk.Runtime, raw json.RawMessage) (sdk.Source, error) {
	o, err := decode(raw)
	if err != nil {
		return nil, err
	}
	if err := loopback(o.Bus); err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	c := newContainer(rt, o.Container)
	listener, err := json.Marshal(map[string]any{"path": pathMessages, "maxBodySize": contract.MaxMessageSize})
	if err != nil {
		return nil, err
	}
	inner, err := systemhttp.NewExtendedSource(c.runtime(o.Bus), listener, map[string]http.Handler{pathPosition: &position{kept: rt.Position}})
	if err != nil {
		return nil, err
	}
	return &source{inner, c}, nil
}

// Run implements sdk.Source.
func (s *source) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { s.watch(watching, state) })
	defer watch.Wait()
	defer stop()
	return s.inner.Run(ctx, bus, unheard{})
}

// watch the container's system.
func (s *source) watch(ctx context.Context, state sdk.Reporter) {
	timer := time.NewTicker(checkEvery)
	defer timer.Stop()
	for {
		changed := s.container.rt.Secrets.Changed()
		if err := s.container.check(ctx); ctx.Err() == nil {
			state.System(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-timer.C:
		}
	}
}

// unheard is a Reporter for the listener, whose state is nobody's concern.
type unheard struct{}

func (unheard) System(error) {}

// position is how far the container has read, as a document of its own: GET asks for it, PUT stores it.
type position struct {
	mu   sync.Mutex
	kept sdk.Position
}

func (p *position) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p.kept == nil {
		answer(w, http.StatusNotFound, "this source keeps no position")
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch r.Method {
	case http.MethodGet:
		document, err := p.kept.Load(r.Context())
		switch {
		case err != nil:
			later(w, err)
		case document == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			w.Header().Set("Content-Type", "application/octet-stream")
			_, _ = w.Write(document) // who does not get it asks again
		}
	case http.MethodPut:
		document, err := io.ReadAll(http.MaxBytesReader(w, r.Body, contract.MaxPosition))
		if err != nil {
			answer(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the position did not arrive, or is larger than %d bytes", contract.MaxPosition))
			return
		}
		switch err := p.kept.Store(r.Context(), document); {
		case errors.Is(err, sdk.ErrMoved):
			answer(w, http.StatusConflict, "another pod has stored a position since: GET it, and go on there")
		case err != nil:
			later(w, err)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	default:
		w.Header().Set("Allow", "GET, PUT")
		answer(w, http.StatusMethodNotAllowed, "send GET or PUT")
	}
}

func later(w http.ResponseWriter, err error) {
	w.Header().Set("Retry-After", "1")
	answer(w, http.StatusServiceUnavailable, err.Error())
}

// answer with a problem.
func answer(w http.ResponseWriter, status int, detail string) {
	body, err := json.Marshal(map[string]any{"type": "about:blank", "title": http.StatusText(status), "status": status, "detail": detail})
	if err != nil {
		body = nil
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
