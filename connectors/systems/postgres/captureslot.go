package postgres

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// watchInterval between two looks at the slot and the publication.
	watchInterval = 5 * time.Second
	watchTimeout  = 20 * time.Second
	mebibyte      = 1 << 20
)

// publicationDDL is what makes the publication that the options ask for. Changes of partitions are those of their table.
func (s *capture) publicationDDL() string {
	tables := make([]string, len(s.Tables))
	for i, name := range s.Tables {
		schema, table := names(name)
		tables[i] = pgx.Identifier{schema, table}.Sanitize()
	}
	return "CREATE PUBLICATION " + pgx.Identifier{s.Publication}.Sanitize() + " FOR TABLE " + strings.Join(tables, ", ") + " WITH (publish_via_partition_root = true)"
}

// ensurePublication makes the publication where it is missing and the tables are known, and checks that it has them. It has to be there
// before the slot, for what it holds is looked up as it was when a change was made.
func (s *capture) ensurePublication(ctx context.Context, control *pgx.Conn) error {
	var found bool
	if err := control.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = $1)", s.Publication).Scan(&found); err != nil {
		return err
	}
	switch {
	case found:
	case len(s.Tables) == 0:
		return s.systemErrorf("publication %s does not exist. Let an administrator run: CREATE PUBLICATION %s FOR TABLE ..., or name the tables in capture.tables", s.Publication, s.Publication)
	default:
		_, err := control.Exec(ctx, s.publicationDDL())
		var pg *pgconn.PgError
		if errors.As(err, &pg) && pg.Code == "42501" {
			return s.systemErrorf("publication %s does not exist, and may not be made (%s). Let an administrator run: %s", s.Publication, pg.Message, s.publicationDDL())
		}
		if err != nil {
			return err
		}
		s.rt.Log.Info("made the publication", "publication", s.Publication)
	}
	return s.checkTables(ctx, control)
}

// checkTables that they are published.
func (s *capture) checkTables(ctx context.Context, control *pgx.Conn) error {
	rows, err := control.Query(ctx, "SELECT schemaname || '.' || tablename FROM pg_catalog.pg_publication_tables WHERE pubname = $1", s.Publication)
	if err != nil {
		return err
	}
	published, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	if len(published) == 0 && len(s.Tables) == 0 {
		return s.systemErrorf("publication %s does not exist, or has no tables", s.Publication)
	}
	for _, name := range s.Tables {
		schema, table := names(name)
		if !slices.Contains(published, schema+"."+table) {
			return s.systemErrorf("table %s.%s does not exist, or is not in publication %s. Where it exists, let its owner run: ALTER PUBLICATION %s ADD TABLE %s",
				schema, table, s.Publication, s.Publication, pgx.Identifier{schema, table}.Sanitize())
		}
	}
	return nil
}

// checkSlot tells whether the slot exists; an error is one that it can never be read with.
func (s *capture) checkSlot(ctx context.Context, control *pgx.Conn) (exists bool, err error) {
	var plugin, status string
	var ours bool
	err = control.QueryRow(ctx, `SELECT coalesce(plugin, ''), coalesce(database = current_database(), false), coalesce(to_jsonb(s) ->> 'wal_status', '')
FROM pg_catalog.pg_replication_slots s WHERE slot_name = $1`, s.Slot).Scan(&plugin, &ours, &status)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, err
	case plugin != outputPlugin || !ours:
		return false, s.systemErrorf("slot %s is another database's, or does not use the plugin %s: name another slot", s.Slot, outputPlugin)
	case status == "lost":
		return false, s.systemErrorf("slot %s has lost what it needs of the log (max_slot_wal_keep_size of the server): changes are missing. Run SELECT pg_drop_replication_slot('%s') "+
			"and the connector makes it anew, with a snapshot of the tables", s.Slot, s.Slot)
	}
	return true, nil
}

// watch the slot and the publication until the context ends. An error is that of the connection.
func (s *capture) watch(ctx context.Context, control *pgx.Conn) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		if err := s.look(ctx, control); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *capture) look(ctx context.Context, control *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	var retained, behind int64
	err := control.QueryRow(ctx, `SELECT coalesce(pg_wal_lsn_diff(p.now, s.restart_lsn), 0)::bigint, coalesce(pg_wal_lsn_diff(p.now, s.confirmed_flush_lsn), 0)::bigint
FROM pg_catalog.pg_replication_slots s, (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END AS now) p
WHERE s.slot_name = $1`, s.Slot).Scan(&retained, &behind)
	if errors.Is(err, pgx.ErrNoRows) {
		return s.systemErrorf("slot %s was dropped", s.Slot)
	}
	if err != nil {
		return err
	}
	s.retained.Store(retained)
	s.behind.Store(behind)
	if retained > s.MaxRetained*mebibyte {
		s.health.watched(s.systemErrorf("the database keeps %d MiB of its log for slot %s, and maxRetainedMiB is %d: the bus has not confirmed the last %d MiB (is it full, or away?), or a transaction has been open for long",
			retained/mebibyte, s.Slot, s.MaxRetained, behind/mebibyte))
		return nil
	}
	switch err := s.checkTables(ctx, control); {
	case err == nil:
		s.health.watched(nil)
	case control.IsClosed():
		return err
	default:
		s.health.watched(s.unavailable(err))
	}
	return nil
}
