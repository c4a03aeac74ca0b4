package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/metip/metip/connectors/contract"
)

const (
	roleTable = "table"
	metaTable = "bus.metip.dev/table"
)

// Table of an Integration, as wanted.
type Table struct {
	Name     string
	MaxBytes int64
	// MaxAge of an entry; 0 means that it stays.
	MaxAge time.Duration
}

// TableState is a table, as found.
type TableState struct {
	Name            string
	Bytes, MaxBytes int64
	// Entries, and notes that a key was removed.
	Entries uint64
}

// tableStream keeps the last entry of each key. A full one refuses what is new, and no message removes another key's entry: there is no roll-up, and
// only the relay writes. Its notes that a key was removed expire by themselves.
func (s *session) tableStream(want Streams, t Table) jetstream.StreamConfig {
	cfg := s.baseStream(contract.TableStream(want.Namespace, want.Integration, t.Name), t.MaxBytes)
	cfg.Description = "lookup table " + t.Name + " of Integration " + want.Namespace + "/" + want.Integration
	cfg.Subjects = []string{contract.TableSubjects(want.Namespace, want.Integration, t.Name)}
	cfg.MaxMsgsPerSubject, cfg.AllowMsgTTL, cfg.AllowAtomicPublish, cfg.DenyDelete = 1, true, false, true
	cfg.MaxAge, cfg.MaxMsgSize = t.MaxAge, contract.MaxTableEntry+contract.MaxHeaderSize
	cfg.Duplicates = deadDuplicates
	if t.MaxAge > 0 {
		cfg.Duplicates = min(deadDuplicates, t.MaxAge) // the server takes no more
	}
	cfg.Metadata = integrationMetadata(want, roleTable)
	cfg.Metadata[metaTable] = t.Name
	return cfg
}

// tables of an Integration that the broker has.
func (s *session) tables(ctx context.Context, namespace, integration string) (out []*jetstream.StreamInfo, err error) {
	list := s.js.ListStreams(ctx, jetstream.WithStreamListSubject(contract.TableSubjects(namespace, integration, "")))
	for info := range list.Info() {
		if info.Config.Metadata[metaRole] == roleTable {
			out = append(out, info)
		}
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("listing tables: %w", explain(err))
	}
	slices.SortFunc(out, func(a, b *jetstream.StreamInfo) int { return cmp.Compare(a.Config.Name, b.Config.Name) })
	return out, nil
}

// tableStates of an Integration.
func (s *session) tableStates(ctx context.Context, namespace, integration string, state *StreamsState) error {
	list, err := s.tables(ctx, namespace, integration)
	for _, info := range list {
		s.look(info, state)
		state.Tables = append(state.Tables, TableState{
			Name: info.Config.Metadata[metaTable], Bytes: int64(info.State.Bytes), MaxBytes: info.Config.MaxBytes, Entries: info.State.Msgs,
		})
	}
	return err
}

// DeleteTable implements Session.
func (s *session) DeleteTable(ctx context.Context, namespace, integration, table string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return s.deleteStream(ctx, contract.TableStream(namespace, integration, table))
}

// deleteStream with everything in it, if it is there.
func (s *session) deleteStream(ctx context.Context, name string) error {
	unlock := s.trimmer.lock(name)
	defer unlock()
	if err := s.js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("stream %s: %w", name, explain(err))
	}
	return nil
}
