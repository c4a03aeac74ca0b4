package v1alpha1

// PostgresSource makes messages of what happens in a PostgreSQL database: exactly one of its members says how.
// +kubebuilder:validation:XValidation:rule="[has(self.capture),has(self.notify),has(self.table)].filter(x, x).size() == 1",message="say what messages are made of: exactly one of capture, notify and table, for example `capture: {slot: metip_court, tables: [court.cases]}`"
type PostgresSource struct {
	// connection to the database.
	// +required
	Connection PostgresConnection `json:"connection"`
	// capture makes a message of each row that is inserted, updated or deleted, in the order of the commits, by logical replication: first of the
	// rows that are there (snapshot), then of each change. See docs/connectors/postgres-capture.md for what server and account need.
	// +optional
	Capture *PostgresCapture `json:"capture,omitempty"`
	// table asks for new and changed rows of a table or view, again and again, by a column that grows. It needs no more than SELECT; it sees neither
	// deletes nor what a row was in between. See docs/connectors/postgres-poll.md.
	// +optional
	Table *PostgresPoll `json:"table,omitempty"`
	// notify makes messages of the server's own notifications (`NOTIFY channel, 'payload'`). They come at most once: the server keeps them for nobody who
	// is not connected. Where none may be lost, use table with notifyChannel, or capture.
	// +optional
	Notify *PostgresNotify `json:"notify,omitempty"`
}

// PostgresPoll takes in the rows of a table or view in the order of a column that grows. How far it has come is kept on the broker, in the state of the
// Integration, for as long as the Connector exists.
// +kubebuilder:validation:XValidation:rule="!has(self.key) || !(self.cursor in self.key)",message="cursor is part of what tells rows apart already: leave it out of key"
type PostgresPoll struct {
	// name of the table or view as schema.table, or table alone for the schema public, for example court.cases.
	// +required
	Name PostgresTable `json:"name"`
	// cursor is the column that grows with every row that is inserted, and with every change that there is to be a message of: an identity or serial column, or
	// a time that each insert and update sets, for example updated_at. Rows in which it is NULL do not come. With key it needs an index.
	// +required
	Cursor PostgresColumn `json:"cursor"`
	// key is the columns that tell rows with the same cursor apart, at most 8, in the order of the index, for example [id]. They must not be NULL.
	// Left out, no two rows have the same cursor. In a table a unique index has to say so.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Key []PostgresColumn `json:"key,omitempty"`
	// columns of the messages, at most 256, for example [id, status, updated_at]. Left out, it is all that the table has at the time.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	Columns []PostgresColumn `json:"columns,omitempty"`
	// start says what becomes of the rows that are there when the Connector begins: Beginning (the default) takes them in, Now leaves them out.
	// +optional
	// +default="Beginning"
	Start PostgresStart `json:"start,omitempty"`
	// interval is how often the table is asked, by default 10s, from 100ms to 24h.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('24h')",message="interval must be between 100ms and 24h, for example 10s"
	Interval *Duration `json:"interval,omitempty"`
	// settle is how long rows are left alone after they have been seen first, by default 5s and at most 1h: time for rows with a smaller cursor to be
	// committed. Transactions that write to the table when a row is seen are waited for in any case; settle is for those that have taken their
	// time, or number, and write to the table only later. Write 0s where the cursor is an identity or serial column that the database fills in.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('1h')",message="settle must be at most 1h, for example 5s"
	Settle *Duration `json:"settle,omitempty"`
	// batchSize is how many rows are taken in at a time, by default 200, from 1 to 1000. Large rows make smaller batches by themselves.
	// +optional
	// +default=200
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	BatchSize *int32 `json:"batchSize,omitempty"`
	// notifyChannel is a channel on which the database says that there may be new rows, for example by a trigger that calls pg_notify('cases', ''): the
	// table is asked then, and every interval all the same, so that a notification that is lost costs time and no row.
	// +optional
	NotifyChannel PostgresChannel `json:"notifyChannel,omitempty"`
}

// PostgresNotify makes a message of each notification on some channels.
type PostgresNotify struct {
	// channels that are listened to, at most 16, for example [cases]. Upper case counts, as in pg_notify('Cases', ...).
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Channels []PostgresChannel `json:"channels"`
}

// PostgresCapture is change data capture by logical replication, with the server's own plugin pgoutput. It needs `wal_level = logical`.
type PostgresCapture struct {
	// slot is the name of the replication slot, 1 to 48 of a-z, 0-9 and _, for example metip_court. It keeps the place up to which the bus has
	// everything, and the server keeps its log from there on. It is made where it does not exist. No two Connectors may read the
	// same one, and whoever removes the Connector removes the slot: `SELECT pg_drop_replication_slot('metip_court')`.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=48
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9_]+$')",message="slot is made of a-z, 0-9 and _, for example metip_court"
	Slot string `json:"slot"`
	// publication that says which tables, columns and operations there are messages of, by default the slot's name. It is made where it does not
	// exist and tables are given, if the account owns them; otherwise an administrator makes it before the slot is made.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=48
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9_]+$')",message="publication is made of a-z, 0-9 and _, for example metip_court"
	Publication string `json:"publication,omitempty"`
	// tables as schema.table, or table alone for the schema public, at most 64, that the publication must have. Left out, it is whatever
	// the publication has, which then has to exist.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Tables []PostgresTable `json:"tables,omitempty"`
	// snapshot says what becomes of the rows that are there when the slot is made: Initial (the default) makes a message of each, with operation
	// `read`, and changes follow from that very moment on; Never begins with the changes.
	// +optional
	// +default="Initial"
	Snapshot PostgresSnapshot `json:"snapshot,omitempty"`
	// maxRetainedMiB of the server's log that the slot may hold, in MiB, from 1 to 1048576, by default 1024. Above it the Connector's condition
	// Connected is False and says so, while it goes on; the server's own max_slot_wal_keep_size is what bounds its disk.
	// +optional
	// +default=1024
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1048576
	MaxRetainedMiB *int32 `json:"maxRetainedMiB,omitempty"`
}

// PostgresTable is schema.table, or table alone for the schema public.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=127
// +kubebuilder:validation:XValidation:rule="self.matches('^[^.\"[:cntrl:]]+([.][^.\"[:cntrl:]]+)?$')",message="a table is schema.table, or table alone, without quotes"
type PostgresTable string

// PostgresColumn is the name of a column, without quotes, for example updated_at.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:XValidation:rule="self.matches('^[^\"[:cntrl:]]+$')",message="a column is named without quotes, for example updated_at"
type PostgresColumn string

// PostgresChannel is the name of a channel of notifications, without quotes, for example cases.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:XValidation:rule="self.matches('^[^\"[:cntrl:]]+$')",message="a channel is named without quotes, for example cases"
type PostgresChannel string

// PostgresStart says what becomes of the rows that are there when a Connector begins.
// +kubebuilder:validation:Enum=Beginning;Now
type PostgresStart string

// Where to start.
const (
	PostgresStartBeginning PostgresStart = "Beginning"
	PostgresStartNow       PostgresStart = "Now"
)

// PostgresSnapshot says what becomes of the rows that are there at the beginning.
// +kubebuilder:validation:Enum=Initial;Never
type PostgresSnapshot string

// The snapshots.
const (
	PostgresSnapshotInitial PostgresSnapshot = "Initial"
	PostgresSnapshotNever   PostgresSnapshot = "Never"
)
