package bus

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Health of a broker's servers.
type Health struct {
	// Servers that answered, by name; empty when the operator has no user of the system account.
	Servers []ServerHealth
	// Leader of the cluster's metadata; empty with one server, or while there is none.
	Leader string
	// Lagging copies of streams, as "stream on server", that have been so for a while.
	Lagging []string
	// NoLeader are streams that take nothing.
	NoLeader []string
}

// ServerHealth is what one server says of itself.
type ServerHealth struct {
	Name, Version string
	// OK: it serves, and its copies of all streams and consumers are current. Otherwise Error says why.
	OK    bool
	Error string
	// Used bytes of its volume, Reserved ones that streams may use up, and Max that it may use at all.
	Used, Reserved, Max int64
}

const (
	subjectHealth    = "$SYS.REQ.SERVER.PING.HEALTHZ"
	subjectJetStream = "$SYS.REQ.SERVER.PING.JSZ"
)

// Health of a Broker. ErrUnreachable is wrapped while there is no live session.
func (r *Registry) Health(ctx context.Context, broker types.NamespacedName) (Health, error) {
	s, err := r.live(broker)
	if err != nil {
		return Health{}, err
	}
	return s.health(ctx)
}

func (s *session) health(ctx context.Context) (Health, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var h Health
	if s.sys != nil {
		if err := s.serversHealth(ctx, &h); err != nil {
			return Health{}, explain(err)
		}
	}
	list := s.js.ListStreams(ctx)
	now := time.Now()
	for info := range list.Info() {
		if info.Config.Metadata[metaRole] == "" {
			continue
		}
		h.Lagging = append(h.Lagging, s.lag.observe(info, now)...)
		if info.Cluster != nil && info.Cluster.Leader == "" {
			h.NoLeader = append(h.NoLeader, info.Config.Name)
		}
	}
	if err := list.Err(); err != nil {
		return Health{}, explain(err)
	}
	slices.Sort(h.Lagging)
	slices.Sort(h.NoLeader)
	return h, nil
}

func (s *session) serversHealth(ctx context.Context, h *Health) error {
	type healthz struct {
		Status string `json:"status"`
		Error  string `json:"error"`
	}
	type jsz struct {
		Store    int64 `json:"storage"`
		Reserved int64 `json:"reserved_storage"`
		Config   struct {
			MaxStore int64 `json:"max_storage"`
		} `json:"config"`
		Meta struct {
			Leader string `json:"leader"`
		} `json:"meta_cluster"`
	}
	// Of an external broker it is not known how many servers it has.
	expected := max(s.params.Client.Replicas, len(s.params.Client.URLs))
	healths, err := pingServers[healthz](ctx, s.sys, subjectHealth, nil, expected)
	if err != nil {
		return err
	}
	usage, err := pingServers[jsz](ctx, s.sys, subjectJetStream, json.RawMessage(`{"config":true}`), expected)
	if err != nil {
		return err
	}
	servers := map[string]*ServerHealth{}
	for _, a := range healths {
		servers[a.Server.Name] = &ServerHealth{Name: a.Server.Name, Version: a.Server.Version, OK: a.Data.Status == "ok", Error: a.Data.Error}
	}
	for _, a := range usage {
		if a.Data.Meta.Leader != "" {
			h.Leader = a.Data.Meta.Leader
		}
		if server := servers[a.Server.Name]; server != nil {
			server.Used, server.Reserved, server.Max = a.Data.Store, a.Data.Reserved, a.Data.Config.MaxStore
		}
	}
	for _, server := range servers {
		h.Servers = append(h.Servers, *server)
	}
	slices.SortFunc(h.Servers, func(a, b ServerHealth) int { return strings.Compare(a.Name, b.Name) })
	return nil
}
