// Package postgres is the system "postgres": a sink that writes each message to a table of a PostgreSQL database, exactly once. What
// it promises, and what the account needs, is in docs/connectors/postgres.md.
//
// sink.go owns the connections; operation.go makes rows of messages and says what became of each; statement.go builds the SQL;
// table.go knows the table's columns and keeps metip_received; value.go makes PostgreSQL text of values; errors.go says what
// an SQLSTATE means.
//
// A batch is one statement (a few, when keys repeat) in one round trip and one implicit transaction: it records the message ids in
// metip_received, and upserts the rows of those that were not there.
package postgres
