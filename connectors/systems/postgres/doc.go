// Package postgres is the system "postgres": a sink that writes each message to a table of a PostgreSQL database, exactly once, and a source
// that makes a message of each change of its tables, of the rows of one, or of notifications. What they promise, and what the account needs, is in
// docs/connectors/postgres.md, postgres-capture.md and postgres-poll.md.
//
// sink.go owns the connections; operation.go makes rows of messages and says what became of each; statement.go builds the SQL;
// table.go knows the table's columns and keeps metip_received; value.go makes PostgreSQL text of values; errors.go says what
// an SQLSTATE means.
//
// A batch is one statement (a few, when keys repeat) in one round trip and one implicit transaction: it records the message ids in
// metip_received, and upserts the rows of those that were not there.
//
// server.go is how all reach the database; source.go tells the sources apart, and has what they share. poll.go is the source of a table's rows, and when it
// asks for what; polltable.go knows the table, and who writes to it; pollrows.go makes messages of rows. notify.go is the source of notifications.
//
// capture.go is the source of changes and its sessions; captureslot.go looks after slot and publication;
// capturesnapshot.go reads what is there at the beginning; capturestream.go reads the log and confirms; capturepublish.go gives changes to
// the bus; capturechange.go and captureencode.go make messages of them.
package postgres
