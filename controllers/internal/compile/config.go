package compile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/systems"
)

// MaxConfigSize of a compiled configuration, in bytes; the API server takes 1 MiB with everything around it.
const MaxConfigSize = 900 << 10

// hashLength of a configuration, in hexadecimal digits.
const hashLength = 10

// Config of a Connector. routes are the destinations that end in it, compiled; only a sink has them. calls are those that begin in it; only
// a source whose requests are answered has them.
func Config(c *v1alpha1.Connector, i *v1alpha1.Integration, s systems.System, broker contract.Broker, routes []contract.Route, calls []contract.Call) (contract.Config, error) {
	options, err := s.OptionsJSON()
	if err != nil {
		return contract.Config{}, fmt.Errorf("options of %s: %w", s.Name, err)
	}
	out := contract.Config{
		Version: contract.ConfigVersion,
		Connector: contract.Connector{
			Namespace: c.Namespace, Name: c.Name, UID: string(c.UID), Generation: c.Generation,
			Created: c.CreationTimestamp.UTC(), Integration: i.Name,
		},
		Broker: broker,
		Auth:   auth(c.Spec.Auth),
		TLS:    tls(c.Spec.TLS),
	}
	if v := systems.Volume(c); v != nil {
		out.Volume = &contract.Volume{Dir: contract.VolumeDir, Claim: v.ClaimName}
	}
	system := contract.System{Type: s.Name, Options: options}
	switch {
	case c.Spec.Source != nil:
		calls = slices.Clone(calls)
		slices.SortFunc(calls, func(a, b contract.Call) int { return strings.Compare(a.Route, b.Route) })
		out.Connector.Marking = i.Spec.Marking
		out.Source = &contract.Source{
			System: system, EventType: c.Spec.Source.EventType, Format: string(c.Spec.Source.Format),
			PartitionKey:        string(c.Spec.Source.PartitionKey),
			History:             c.Spec.Source.History,
			Position:            KeepsPosition(c),
			Suspended:           Suspended(c.Spec.Suspend, i.Spec.Suspend),
			DeduplicationWindow: contract.Duration(DeduplicationWindow(i)),
			Calls:               calls,
		}
		if c.Spec.Source.Schema != nil {
			schema := Schema(c.Spec.Source.Schema)
			out.Source.Schema = &schema
		}
		if out.Source.EventType == "" {
			out.Source.EventType = c.Name
		}
		if out.Source.Format == "" {
			out.Source.Format = string(v1alpha1.FormatJSON)
		}
	case c.Spec.Service != nil:
		out.Service = service(c, i, system)
	default:
		routes = slices.Clone(routes)
		slices.SortFunc(routes, func(a, b contract.Route) int {
			return strings.Compare(a.Name+"/"+a.Destination, b.Name+"/"+b.Destination)
		})
		out.Sink = &contract.Sink{System: system, Routes: routes}
		if s.Name == contract.RelaySystem {
			out.Connector.Marking = i.Spec.Marking
		}
	}
	out.Hash, err = hash(out)
	return out, err
}

// hash of a configuration without generations: scaling or suspending changes them, and concerns no pod.
func hash(c contract.Config) (string, error) {
	c.Hash, c.Connector.Generation = "", 0
	if c.Sink != nil {
		sink := *c.Sink
		sink.Routes = slices.Clone(sink.Routes)
		for n := range sink.Routes {
			sink.Routes[n].Generation = 0
		}
		c.Sink = &sink
	}
	if c.Source != nil && len(c.Source.Calls) > 0 {
		source := *c.Source
		source.Calls = slices.Clone(source.Calls)
		for n := range source.Calls {
			source.Calls[n].Generation = 0
		}
		c.Source = &source
	}
	return digest(c)
}

func digest(v any) (string, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])[:hashLength], nil
}

// Suspended tells whether any of the switches is on.
func Suspended(switches ...*bool) bool {
	return slices.ContainsFunc(switches, func(s *bool) bool { return s != nil && *s })
}

func auth(a *v1alpha1.Auth) contract.Auth {
	switch {
	case a == nil:
		return contract.Auth{Kind: contract.AuthNone}
	case a.Basic != nil:
		return contract.Auth{Kind: contract.AuthBasic, SecretName: a.Basic.Secret.Name, Keys: []string{"username", "password"}}
	case a.Bearer != nil:
		return contract.Auth{Kind: contract.AuthBearer, SecretName: a.Bearer.Token.Name, Keys: []string{a.Bearer.Token.Key}}
	case a.HMAC != nil:
		return contract.Auth{Kind: contract.AuthHMAC, Header: a.HMAC.Header, SecretName: a.HMAC.Key.Name, Keys: []string{a.HMAC.Key.Key}}
	case a.SSH != nil:
		return contract.Auth{Kind: contract.AuthSSH, User: a.SSH.User, SecretName: a.SSH.Secret.Name, Keys: []string{"ssh-privatekey"}}
	default:
		return contract.Auth{Kind: contract.AuthAnonymous}
	}
}

func tls(t *v1alpha1.TLS) *contract.TLS {
	if t == nil {
		return nil
	}
	out := &contract.TLS{ServerName: t.ServerName}
	if t.CA != nil {
		out.CA = true
		if k := t.CA.Secret; k != nil {
			out.CAFrom = "secret " + k.Name + " key " + k.Key
		} else if k := t.CA.ConfigMap; k != nil {
			out.CAFrom = "configMap " + k.Name + " key " + k.Key
		}
	}
	if t.Certificate != nil {
		out.Certificate = true
		out.CertificateFrom = "secret " + t.Certificate.Name
	}
	return out
}
