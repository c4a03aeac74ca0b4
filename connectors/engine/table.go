package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

// conflictPause before an entry is read again that another pod has written meanwhile, or whose copy is behind; twice as long each time.
const conflictPause = 5 * time.Millisecond

// errNoTable: there is no stream of the table, or none of its servers answers.
var errNoTable = errors.New("it is not on the broker yet, or its servers are away")

// position on the bus of the message that an entry was made of.
type position struct {
	sequence uint64
	part     int
}

func (p position) before(o position) bool {
	return p.sequence < o.sequence || p.sequence == o.sequence && p.part < o.part
}

func (p position) String() string {
	text := strconv.FormatUint(p.sequence, 10)
	if p.part > 0 {
		text += "." + strconv.Itoa(p.part)
	}
	return text
}

func parsePosition(text string) (p position, err error) {
	sequence, part, split := strings.Cut(text, ".")
	if p.sequence, err = strconv.ParseUint(sequence, 10, 64); err == nil && split {
		p.part, err = strconv.Atoi(part)
	}
	return p, err
}

// tableEntry is what a table holds under a subject.
type tableEntry struct {
	// sequence in the table's own stream; 0 where there is nothing, not even the note that the key was removed.
	sequence                 uint64
	at                       position
	key, format, contentType string
	// data is empty where the key was removed.
	data []byte
}

// readEntry of a subject. Any server with a copy answers, so that it may be a moment old.
func readEntry(ctx context.Context, nc *nats.Conn, get, subject string) (tableEntry, error) {
	m, err := nc.RequestWithContext(ctx, get, nil)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return tableEntry{}, errNoTable
	case err != nil:
		return tableEntry{}, err
	}
	switch status := first(m.Header, "Status"); {
	case status == "404":
		return tableEntry{}, nil
	case status != "":
		return tableEntry{}, fmt.Errorf("the broker answers %s %s", status, first(m.Header, "Description"))
	case first(m.Header, headerSubject) != subject:
		return tableEntry{}, fmt.Errorf("the broker answers with %.100q", first(m.Header, headerSubject))
	}
	e := tableEntry{
		key: unescapeHeader(first(m.Header, contract.HeaderTableKey)), format: first(m.Header, contract.HeaderFormat),
		contentType: first(m.Header, contract.HeaderContentType), data: m.Data,
	}
	if e.at, err = parsePosition(first(m.Header, contract.HeaderTablePosition)); err != nil {
		return tableEntry{}, fmt.Errorf("the entry %s is none of MetIP's: %w", subject, err)
	}
	e.sequence, err = strconv.ParseUint(first(m.Header, headerSequence), 10, 64)
	return e, err
}

// tableOperation writes messages into a table. Of all messages that make the entry of a key, the last on the bus is what stays, in whatever order
// they are written and however often: an entry holds the place of its message, and is replaced only as it was read.
type tableOperation struct {
	*relayOperation
	keyLocks
	table, stream, prefix string
	of                    *steps.Entry
}

// tableOperation of one destination.
func (s *relaySink) tableOperation(o *relayOperation, t contract.TableOperation, integration string) (sdk.Operation, error) {
	if t.Name == "" {
		return nil, errors.New("the table has no name")
	}
	of, err := steps.CompileEntry(t)
	if err != nil {
		return nil, err
	}
	return &tableOperation{
		relayOperation: o, table: t.Name, stream: contract.TableStream(s.who.Namespace, integration, t.Name),
		prefix: contract.TablePrefix(s.who.Namespace, integration, t.Name), of: of,
	}, nil
}

// Write implements sdk.Operation.
func (o *tableOperation) Write(ctx context.Context, batch []*sdk.Delivery) []error {
	results, keys := make([]error, len(batch)), map[string][]int{}
	for i, m := range batch {
		key, err := o.of.Key(m.Message)
		if err != nil {
			results[i] = sdk.Permanent(&stepError{"table", err})
			continue
		}
		keys[key] = append(keys[key], i)
	}
	each(keys, func(key string, positions []int) {
		defer o.lock(key)()
		slices.SortStableFunc(positions, func(a, b int) int {
			return cmp.Or(cmp.Compare(batch[a].Sequence, batch[b].Sequence), cmp.Compare(batch[a].Part, batch[b].Part))
		})
		var known *tableEntry // as this pod has just read or written it
		for _, i := range positions {
			if err := o.write(ctx, key, batch[i], &known); err != nil {
				results[i] = err
			}
		}
	})
	return results
}

// write one message, unless a later one has made the entry. known is what the entry is; nil where that has to be read.
func (o *tableOperation) write(ctx context.Context, key string, m *sdk.Delivery, known **tableEntry) error {
	at := position{m.Sequence, m.Part}
	entry, err := o.encode(key, m, at)
	if err != nil {
		return sdk.Permanent(err)
	}
	pause := conflictPause
	for try := 1; ; try++ {
		if *known == nil {
			have, err := o.read(ctx, entry.Subject)
			if err != nil {
				return o.failure(err)
			}
			*known = &have
		}
		if have := *known; have.sequence > 0 && at.before(have.at) {
			return errFiltered
		}
		entry.Header[headerExpectedLastBySubj] = []string{strconv.FormatUint((*known).sequence, 10)}
		sequence, err := publishExpecting(ctx, o.sink.conn.nc, entry)
		if err == nil {
			*known = &tableEntry{sequence: sequence, at: at}
			return nil
		}
		*known = nil
		if !errors.Is(err, errConflict) || try == conflictTries {
			return o.failure(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
			pause *= 2
		}
	}
}

func (o *tableOperation) read(ctx context.Context, subject string) (tableEntry, error) {
	ctx, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	return readEntry(ctx, o.sink.conn.nc, contract.APIPrefix+".DIRECT.GET."+o.stream+"."+subject, subject)
}

// encode the entry that a message makes. One that removes its key has no body, and is forgotten in time.
func (o *tableOperation) encode(key string, m *sdk.Delivery, at position) (*nats.Msg, error) {
	removes, err := o.of.Removes(m.Message)
	if err != nil {
		return nil, &stepError{"table", err}
	}
	out := &nats.Msg{Subject: o.prefix + contract.StateToken(key), Header: nats.Header{
		contract.HeaderTableKey:      {escapeHeader(key)},
		contract.HeaderTablePosition: {at.String()},
		contract.HeaderID:            {escapeHeader(m.ID)},
		contract.HeaderSource:        {escapeHeader(m.Source)},
	}}
	if removes {
		out.Header[headerTTL] = []string{contract.TombstoneAge.String()}
		return out, nil
	}
	switch {
	case len(m.Data) > contract.MaxTableEntry:
		return nil, fmt.Errorf("its body has %d bytes, and an entry of a table at most %d", len(m.Data), contract.MaxTableEntry)
	case m.Format == sdk.FormatBinary:
		return nil, errors.New("its body is binary: an entry of a table is JSON, XML or text")
	}
	out.Data = m.Data
	out.Header[contract.HeaderFormat] = []string{cmp.Or(m.Format, sdk.FormatJSON)}
	if m.ContentType != "" {
		out.Header[contract.HeaderContentType] = []string{m.ContentType}
	}
	if marking := cmp.Or(escapeHeader(m.Headers["marking"]), o.marking); marking != "" {
		out.Header[contract.HeaderMarking] = []string{marking}
	}
	return out, nil
}

// failure of the table, in the engine's terms: what it cannot take now waits where it is.
func (o *tableOperation) failure(err error) error {
	switch {
	case errors.Is(err, errStateFull):
		return sdk.Unavailable(contract.ReasonTableFull, fmt.Errorf("table %s is full: raise spec.tables[%s].size of Integration %s, set its maxAge, or remove entries",
			o.table, o.table, o.sink.who.Integration))
	case errors.Is(err, errConflict):
		return sdk.Unavailable(contract.ReasonBrokerUnreachable, fmt.Errorf("table %s: others write the entry all the time, or the broker's copies are behind: %w", o.table, err))
	case isCode(err, codeMessageTooLarge):
		return sdk.Permanent(fmt.Errorf("the entry is larger than table %s takes: %w", o.table, err))
	}
	return o.relayOperation.failure(fmt.Errorf("table %s: %w", o.table, err))
}
