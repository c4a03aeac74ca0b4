package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/tlsfiles"
)

// verdict is what an error says about the messages of the transaction that it ended.
type verdict int

const (
	// transient: the transaction may well pass another time.
	transient verdict = iota
	// data: one of the messages, or the message if it was one, will never be accepted.
	data
	// down: it says nothing about the messages.
	down
)

// judge an error by its SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html). reason is for verdict down.
func judge(err error) (v verdict, reason string) {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || len(pg.Code) < 5 {
		var unavailable *sdk.UnavailableError
		switch {
		case errors.As(err, &unavailable):
			return down, unavailable.Reason
		case tlsfiles.IsCertificateError(err):
			return down, contract.ReasonCertificateInvalid
		default:
			return down, contract.ReasonConnectionFailed
		}
	}
	switch pg.Code {
	case "42804": // datatype mismatch: values are cast to the columns' types, so these have just been altered
		return transient, ""
	case "57014": // query canceled: statement_timeout, or ours
		return transient, ""
	case "25006": // read only: a standby
		return down, contract.ReasonSystemError
	case "54001": // statement too complex
		return down, contract.ReasonSystemError
	}
	switch pg.Code[:2] {
	case "21", "22", "23", "44", "54", "P0": // cardinality, data, integrity, WITH CHECK OPTION, program limits, RAISE
		return data, ""
	case "08", "53", "57": // connection, resources, operator intervention
		return down, contract.ReasonConnectionFailed
	case "28":
		return down, contract.ReasonAuthenticationFailed
	case "0A", "3D", "3F", "42", "58": // feature, database, schema, syntax or access rule, system
		return down, contract.ReasonSystemError
	default: // 40: rollback, 55: object state (lock), XX: internal
		return transient, ""
	}
}

// unavailable is the state of a database that does not work for us at all.
func (s *access) unavailable(err error) error {
	var already *sdk.UnavailableError
	if errors.As(err, &already) {
		return already
	}
	_, reason := judge(err)
	if reason == "" {
		reason = contract.ReasonSystemError
	}
	return sdk.Unavailable(reason, fmt.Errorf("%s: %s", s.endpoint, describe(err)))
}

// describe an error on one line. Of what the server says, details are left out, for they hold rows.
func describe(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		text := pg.Message
		if pg.Code == "25006" {
			text += " (is it a standby?)"
		}
		return text + " (SQLSTATE " + pg.Code + ")"
	}
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		if inner := connect.Unwrap(); inner != nil {
			err = inner
		}
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "server refused TLS connection"):
		return "the server refuses TLS: set it up there, or set encryption to Disabled"
	case errors.Is(err, context.DeadlineExceeded):
		return "no connection in time"
	}
	return strings.Join(strings.Fields(text), " ")
}
