package contract

import (
	"encoding/json"
	"slices"
	"time"
)

// A lookup table of an Integration is a stream that keeps the last entry of each key. Only the relay writes entries, in the order that the messages
// have on the bus, and steps enrich read them one by one. It is no NATS KV bucket: in one of those a single message of one writer can remove the
// entries of all others (roll-up).

const (
	// HeaderTableKey is the key of an entry, escaped as attributes are. Its subject holds no more than a digest of it.
	HeaderTableKey = "metip-table-key"
	// HeaderTablePosition is the place on the bus of the message that an entry was made of: its sequence in the stream of the Integration, or the
	// original's if a Replay brought it, and with a dot behind it the number of the part if it was split. An entry never takes the place of a later one.
	HeaderTablePosition = "metip-table-position"
	// TombstoneAge is how long it is remembered that a key was removed. Until then no older message brings it back.
	TombstoneAge = 24 * time.Hour
	// MaxTableEntry is the largest entry, in bytes: what enrich takes.
	MaxTableEntry = MaxEnrichment
)

// TableOperation writes a message into a table.
type TableOperation struct {
	Name string `json:"name"`
	// Key is a CEL expression.
	Key string `json:"key"`
	// Remove is a CEL expression that is true for what removes its key; empty means that only a body that is empty, or null, does.
	Remove string `json:"remove,omitempty"`
}

// TableRef is a table of an Integration.
type TableRef struct {
	Integration string
	Table       string
}

// TableStream of a table.
func TableStream(namespace, integration, table string) string {
	return namespace + "_" + integration + "_table_" + table
}

// TableSubjects are what TableStream stores. The empty table means all of an Integration.
func TableSubjects(namespace, integration, table string) string {
	if table == "" {
		table = "*"
	}
	return TablePrefix(namespace, integration, table) + "*"
}

// TablePrefix begins the subject of every entry; StateToken of the key ends it.
func TablePrefix(namespace, integration, table string) string {
	return "table." + namespace + "." + integration + "." + table + "."
}

// TableGet is where the entry of one subject is read, or with TableSubjects what lets all be read.
func TableGet(namespace, integration, table, subject string) string {
	return APIPrefix + ".DIRECT.GET." + TableStream(namespace, integration, table) + "." + subject
}

// ReadTables are the tables that the steps of Routes look things up in, each once.
func ReadTables(routes []Route) []TableRef {
	var out []TableRef
	for i := range routes {
		for _, s := range routes[i].Steps {
			if s.Enrich != nil && s.Enrich.Table != "" {
				out = addTable(out, TableRef{Integration: routes[i].Integration, Table: s.Enrich.Table})
			}
		}
	}
	return out
}

// WrittenTables are the tables that destinations of a relay write, each once.
func WrittenTables(routes []Route) []TableRef {
	var out []TableRef
	for i := range routes {
		var op EventOperation
		if json.Unmarshal(routes[i].Operation, &op) == nil && op.Table != nil {
			out = addTable(out, TableRef{Integration: routes[i].Integration, Table: op.Table.Name})
		}
	}
	return out
}

func addTable(list []TableRef, t TableRef) []TableRef {
	if slices.Contains(list, t) {
		return list
	}
	return append(list, t)
}

// WithTables are the permissions of a connector besides: to read entries of tables, and to write those of others, which takes reading.
func (p Permissions) WithTables(namespace string, read, written []TableRef) Permissions {
	for _, t := range written {
		p.Publish = append(p.Publish, TableSubjects(namespace, t.Integration, t.Table))
		read = addTable(slices.Clone(read), t)
	}
	for _, t := range read {
		p.Publish = append(p.Publish, TableGet(namespace, t.Integration, t.Table, TableSubjects(namespace, t.Integration, t.Table)))
	}
	return p
}
