package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/metip/metip/connectors/contract"
)

const (
	maxServers  = 16
	defaultBeat = 10 * time.Second
)

// Server is one of a cluster.
type Server struct {
	Host, Address string
	// Endpoint for errors: scheme, host and port.
	Endpoint string
}

// Schemes of a protocol without and with TLS, and their ports.
type Schemes struct{ Plain, PlainPort, Secure, SecurePort string }

// Parse the servers of a cluster.
func (s Schemes) Parse(list []string) (servers []Server, secure bool, err error) {
	if len(list) == 0 || len(list) > maxServers {
		return nil, false, fmt.Errorf("connection: there must be 1 to %d servers", maxServers)
	}
	scheme := ""
	for _, text := range list {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != s.Plain && u.Scheme != s.Secure || u.Hostname() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, false, fmt.Errorf("connection: server %q must be %s://host:port or %s://host:port", text, s.Secure, s.Plain)
		}
		if scheme != "" && scheme != u.Scheme {
			return nil, false, fmt.Errorf("connection: the servers are all %s:// or all %s://", s.Secure, s.Plain)
		}
		scheme = u.Scheme
		port := u.Port()
		switch {
		case port != "":
		case scheme == s.Secure:
			port = s.SecurePort
		default:
			port = s.PlainPort
		}
		address := net.JoinHostPort(u.Hostname(), port)
		servers = append(servers, Server{u.Hostname(), address, scheme + "://" + address})
	}
	return servers, scheme == s.Secure, nil
}

// Heartbeat that is asked for, or the default.
func Heartbeat(beat contract.Duration) (contract.Duration, error) {
	switch d := time.Duration(beat); {
	case d == 0:
		return contract.Duration(defaultBeat), nil
	case d < time.Second || d > 10*time.Minute:
		return 0, errors.New("connection: heartbeat must be between 1s and 10m")
	}
	return beat, nil
}
