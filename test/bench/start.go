package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/loopback"
)

// flowOf names the objects of a pipeline; each pipeline has an Integration, so a stream, of its own.
func flowOf(name string) loopback.Flow {
	return loopback.Flow{Integration: name, Source: name + "-in", Route: name, Destination: "out", Sink: name + "-out"}
}

// startRef starts the reference pipeline on a broker: through the same accounts and permissions as MetIP's, or on a bare server.
func startRef(ctx context.Context, s *server, name, binary, to string) (p *pipeline, err error) {
	f := flowOf(name)
	p = &pipeline{name: name, flow: f, broker: s}
	source, sink := []string{"source"}, []string{"sink"}
	if s.bare != nil {
		if err := s.prepareBare(ctx, f); err != nil {
			return nil, err
		}
	} else {
		users, err := s.broker.Prepare(ctx, loopback.DefaultLimits(), f)
		if err != nil {
			return nil, err
		}
		ca, err := s.file("ca.pem", s.broker.CA())
		if err != nil {
			return nil, err
		}
		common := []string{"-ca", ca, "-api-prefix", contract.APIPrefix}
		for _, x := range []struct {
			args  *[]string
			name  string
			creds []byte
		}{{&source, f.Source, users.Source}, {&sink, f.Sink, users.Sink}} {
			creds, err := s.file(x.name+".creds", x.creds)
			if err != nil {
				return nil, err
			}
			*x.args = append(append(*x.args, common...), "-creds", creds, "-inbox", contract.InboxPrefix(loopback.Namespace, x.name))
		}
	}
	for _, x := range []struct {
		args    []string
		more    []string
		process **process
		url     *string
	}{
		{source, []string{"-subject", contract.EventSubject(loopback.Namespace, f.Integration, f.Source, 0, f.Source)}, &p.source, &p.url},
		{sink, []string{"-stream", f.Stream(), "-durable", f.Durable(), "-target", to}, &p.sink, new(string)},
	} {
		address, err := freeAddress()
		if err != nil {
			return p, err
		}
		args := append(append(x.args, "-nats", s.url, "-listen", address), x.more...)
		*x.url = "http://" + address + "/"
		if *x.process, err = start(ctx, s.dir, name+"-"+args[0], *x.url+"readyz", binary, args...); err != nil {
			p.stop()
			return nil, err
		}
	}
	return p, nil
}

func (s *server) file(name string, data []byte) (string, error) {
	path := filepath.Join(s.dir, name)
	return path, os.WriteFile(path, data, 0o600)
}
