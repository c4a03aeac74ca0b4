package http

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/tlsfiles"
)

const (
	headerTimeout = 10 * time.Second
	// readTimeout of a whole request, and writeTimeout from the end of its header to the end of the answer.
	readTimeout  = 60 * time.Second
	writeTimeout = readTimeout + publishTimeout + 5*time.Second
	idleTimeout  = 120 * time.Second
	// drainTimeout is how long requests in flight have when the pod ends.
	drainTimeout = publishTimeout + 5*time.Second
	// recheckInterval is how often a certificate's expiry is looked at.
	recheckInterval = time.Minute
)

// source listens for requests.
type source struct {
	rt      sdk.Runtime
	handler *handler
	// others answer at paths of their own; nil where the handler answers all.
	others map[string]http.Handler
	tls    atomic.Pointer[tls.Config]
}

// NewSource makes a source of the JSON of the API's HTTPSource.
func NewSource(rt sdk.Runtime, options json.RawMessage) (sdk.Source, error) {
	path, maxBody, exchange, err := decodeSourceOptions(options)
	if err != nil {
		return nil, err
	}
	if rt.Config.Source == nil {
		return nil, errors.New("the configuration has no source")
	}
	switch rt.Config.Source.Format {
	case sdk.FormatJSON, sdk.FormatXML, sdk.FormatText, sdk.FormatBinary:
	default:
		return nil, fmt.Errorf("format %q is not one of JSON, XML, Text and Binary", rt.Config.Source.Format)
	}
	if err := checkLarge(rt.Config, maxBody); err != nil {
		return nil, err
	}
	auth, err := newListenAuth(rt.Config.Auth, rt.Secrets)
	if err != nil {
		return nil, err
	}
	s := &source{rt: rt, handler: &handler{
		path: path, maxBody: maxBody, auth: auth,
		format: rt.Config.Source.Format, marking: rt.Config.Connector.Marking,
	}}
	if exchange == exchangeRequestReply {
		s.handler.exchange = newExchange(rt, path)
	}
	return s, nil
}

// Run serves until the context ends, and then until the requests in flight are answered.
func (s *source) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	s.handler.bus = bus
	if err := s.handler.takeLarge(bus); err != nil {
		return err
	}
	listener, err := s.rt.Listen(ctx)
	if err != nil {
		return fmt.Errorf("open the listener: %w", err)
	}
	server := &http.Server{
		Handler:           s.root(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      s.handler.exchange.writeTimeout(),
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    contract.MaxHeaderSize,
		ErrorLog:          slog.NewLogLogger(s.rt.Log.Handler(), slog.LevelDebug),
		// Requests in flight outlive ctx: they are what draining waits for.
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	served := make(chan error, 1)
	s.refresh(state)
	go func() { served <- s.serve(server, listener) }()
	timer := time.NewTicker(recheckInterval)
	defer timer.Stop()
	for {
		changed := s.rt.Secrets.Changed()
		s.refresh(state)
		select {
		case <-ctx.Done():
			return drain(ctx, server)
		case err := <-served:
			return fmt.Errorf("serve: %w", err)
		case <-changed:
		case <-timer.C:
		}
	}
}

func (s *source) root() http.Handler {
	if s.others == nil {
		return s.handler
	}
	mux := http.NewServeMux()
	mux.Handle("/", s.handler)
	for path, other := range s.others {
		mux.Handle(path, other)
	}
	return mux
}

func (s *source) serve(server *http.Server, listener net.Listener) error {
	if s.rt.Config.TLS == nil {
		return server.Serve(listener)
	}
	server.TLSConfig = &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if config := s.tls.Load(); config != nil {
				return config, nil
			}
			return nil, errors.New("the listener has no certificate yet")
		},
	}
	return server.ServeTLS(listener, "", "")
}

// drain answers what was begun. Keep-alive ends with each answer, so that callers go to another pod.
func drain(ctx context.Context, server *http.Server) error {
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := server.Shutdown(limit); err != nil {
		_ = server.Close()
		return fmt.Errorf("requests in flight were cut off: %w", err)
	}
	return nil
}

// refresh takes over what the mounted files now hold, and reports whether callers can be served with it. A certificate that
// cannot be used leaves the one before in place.
func (s *source) refresh(state sdk.Reporter) {
	var err error
	if s.rt.Config.TLS != nil {
		config, notAfter, tlsErr := tlsfiles.Server(s.rt, "h2", "http/1.1")
		if tlsErr == nil {
			s.tls.Store(config)
			if time.Now().After(notAfter) {
				tlsErr = sdk.Unavailable(contract.ReasonCertificateInvalid, fmt.Errorf("%s: the listener's certificate expired on %s",
					s.rt.Config.TLS.CertificateFrom, notAfter.UTC().Format(time.RFC3339)))
			}
		}
		err = tlsErr
	}
	if credentials := s.handler.auth.credentials(); err == nil {
		err = credentials.err
	}
	state.System(err)
}
