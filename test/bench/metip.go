package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/loopback"
)

// startMetIP starts the connectors of a pipeline as the operator would: the same configuration, users and durable consumer.
func startMetIP(ctx context.Context, s *server, name, binary, to, profile string) (p *pipeline, err error) {
	f := flowOf(name)
	p = &pipeline{name: name, flow: f, broker: s}
	users, err := s.broker.Prepare(ctx, loopback.DefaultLimits(), f)
	if err != nil {
		return nil, err
	}
	source, sink := configOf(s, f, f.Source), configOf(s, f, f.Sink)
	source.Source = &contract.Source{
		System:    contract.System{Type: "http", Options: json.RawMessage(`{"path": "/", "maxBodySize": "1Mi"}`)},
		EventType: f.Source, Format: "JSON", DeduplicationWindow: contract.Duration(loopback.DeduplicationWindow),
	}
	url, err := json.Marshal(map[string]string{"url": to})
	if err != nil {
		return nil, err
	}
	sink.Sink = &contract.Sink{
		System: contract.System{Type: "http", Options: url},
		Routes: []contract.Route{{
			Name: f.Route, UID: f.Route, Generation: 1, Destination: f.Destination, Integration: f.Integration,
			Stream: f.Stream(), Durable: f.Durable(),
			Steps:    []contract.Step{filterStep()},
			Delivery: loopback.Delivery(),
		}},
	}
	var address string
	if p.source, address, err = startConnector(ctx, s, source, users.Source, binary, profile); err != nil {
		return nil, err
	}
	p.url = "http://" + address + "/"
	if p.sink, _, err = startConnector(ctx, s, sink, users.Sink, binary, profile); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// configOf a connector of a flow, but for its role.
func configOf(s *server, f loopback.Flow, name string) *contract.Config {
	return &contract.Config{
		Version: contract.ConfigVersion, Hash: "bench",
		Connector: contract.Connector{
			Namespace: loopback.Namespace, Name: name, UID: name, Generation: 1, Created: time.Now(), Integration: f.Integration,
		},
		Broker: s.broker.Client(),
		Auth:   contract.Auth{Kind: contract.AuthAnonymous},
	}
}

// startConnector runs one connector pod's process, with what the operator would mount in files.
func startConnector(ctx context.Context, s *server, c *contract.Config, user []byte, binary, profile string) (*process, string, error) {
	name := c.Connector.Name
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, "", err
	}
	config, err := s.file(name+".json", raw)
	if err != nil {
		return nil, "", err
	}
	creds, err := s.file(name+".creds", user)
	if err != nil {
		return nil, "", err
	}
	secrets := filepath.Join(s.dir, name+"-secrets")
	if err := os.MkdirAll(secrets, 0o700); err != nil {
		return nil, "", err
	}
	listener, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	health, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	args := []string{"-config", config, "-creds", creds, "-system-dir", secrets, "-listen", listener, "-health-addr", health, "-allow-loopback"}
	if profile != "" {
		args = append(args, "-profile", filepath.Join(profile, name))
	}
	p, err := startWith(ctx, s.dir, name, "http://"+health+"/readyz", []string{contract.EnvPodName + "=" + name + "-0"}, binary, args...)
	return p, listener, err
}
