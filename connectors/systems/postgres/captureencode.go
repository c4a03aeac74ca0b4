package postgres

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/internal/rawjson"
)

// Extension attributes of a change.
const (
	headerOperation = "pgoperation"
	headerTable     = "pgtable"
	headerPosition  = "pglsn"
)

// maxKey of a row, in bytes, that is named as it is; a longer one by its digest.
const maxKey = 256

// partitionKey keeps the changes of a row together, or those of a table whose rows have no names; where nothing but inserts can come,
// there is no order to keep.
func (r *relation) partitionKey(e *event) string {
	row := e.named()
	if !r.keyed || row == nil {
		if r.inserts && e.operation == operationInsert || e.operation == operationRead {
			return ""
		}
		return r.name
	}
	key := []byte{'['}
	for i, a := range r.attributes {
		if a.key {
			if len(key) > 1 {
				key = append(key, ',')
			}
			key = appendCell(key, a.oid, e.cellOf(row, i))
		}
	}
	key = append(key, ']')
	if len(key) > maxKey {
		sum := sha256.Sum256(key)
		key = []byte(hex.EncodeToString(sum[:]))
	}
	return r.name + "/" + string(key)
}

// cellOf a row; of one that was not repeated, the old row's.
func (e *event) cellOf(row []cell, i int) cell {
	if row[i].kind == cellUnchanged && e.before != nil {
		return e.before[i]
	}
	return row[i]
}

// encode the body. One that is larger than the bus takes has the key alone, and says so.
func (e *event) encode() []byte {
	body := e.appendBody(nil, false)
	if len(body) > contract.MaxMessageSize {
		return e.appendBody(nil, true)
	}
	return body
}

func (e *event) appendBody(b []byte, keyOnly bool) []byte {
	b = append(b, `{"operation":"`...)
	b = append(b, e.operation...)
	b = append(b, `","table":`...)
	b = appendString(b, e.relation.name)
	if row := e.named(); row != nil && e.relation.keyed {
		b = append(b, `,"key":`...)
		b = e.appendRow(b, row, true)
	}
	if keyOnly {
		b = append(b, `,"tooLarge":true`...)
	} else {
		if e.before != nil {
			b = append(b, `,"before":`...)
			b = e.appendRow(b, e.before, e.keyOnly)
		}
		if e.after != nil {
			b = append(b, `,"after":`...)
			b = e.appendRow(b, e.after, false)
		}
		b = e.appendUnchanged(b)
	}
	b = append(b, `,"position":{"lsn":"`...)
	b = append(b, e.lsn...)
	if e.operation == operationRead {
		return append(b, `"}}`...)
	}
	b = append(b, `","index":`...)
	b = strconv.AppendInt(b, int64(e.index), 10)
	b = append(b, `,"transaction":`...)
	b = strconv.AppendUint(b, uint64(e.transaction), 10)
	b = append(b, `,"committed":"`...)
	b = e.committed.UTC().AppendFormat(b, time.RFC3339Nano)
	return append(b, `"}}`...)
}

func (e *event) appendRow(b []byte, row []cell, keyOnly bool) []byte {
	b = append(b, '{')
	first := true
	for i, a := range e.relation.attributes {
		c := row[i]
		if keyOnly {
			if !a.key {
				continue
			}
			c = e.cellOf(row, i)
		}
		if c.kind == cellUnchanged {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, a.head...)
		b = appendCell(b, a.oid, c)
	}
	return append(b, '}')
}

// appendUnchanged names the columns that the log does not repeat.
func (e *event) appendUnchanged(b []byte) []byte {
	first := true
	for i, c := range e.after {
		if c.kind != cellUnchanged {
			continue
		}
		if first {
			b = append(b, `,"unchanged":[`...)
		} else {
			b = append(b, ',')
		}
		first = false
		b = appendString(b, e.relation.attributes[i].name)
	}
	if first {
		return b
	}
	return append(b, ']')
}

// appendCell writes a value as JSON.
func appendCell(b []byte, oid uint32, c cell) []byte {
	if c.kind != cellText {
		return append(b, "null"...)
	}
	switch oid {
	case pgtype.BoolOID:
		return strconv.AppendBool(b, string(c.text) == "t")
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID, pgtype.Float4OID, pgtype.Float8OID, pgtype.NumericOID:
		if end, _ := rawjson.Number(c.text, 0); end == len(c.text) {
			return append(b, c.text...)
		}
	case pgtype.JSONOID, pgtype.JSONBOID:
		if json.Valid(c.text) {
			return append(b, c.text...)
		}
	case pgtype.ByteaOID:
		if raw, err := hex.DecodeString(string(bytes.TrimPrefix(c.text, []byte(`\x`)))); err == nil {
			b = append(b, '"')
			b = base64.StdEncoding.AppendEncode(b, raw)
			return append(b, '"')
		}
	case pgtype.TimestampOID, pgtype.TimestamptzOID:
		return appendString(b, moment(string(c.text)))
	}
	return appendString(b, string(c.text))
}

// moment writes a time as RFC 3339 does; what that cannot (infinity, years before Christ) stays as it is.
func moment(s string) string {
	const date = len("2026-01-02")
	if len(s) <= date || s[date] != ' ' || s[len(s)-1] == 'C' {
		return s
	}
	s = s[:date] + "T" + s[date+1:]
	if n := len(s) - len("+00"); s[n:] == "+00" {
		s = s[:n] + "Z"
	}
	return s
}

// appendString writes a JSON string.
func appendString(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			var out bytes.Buffer
			encoder := json.NewEncoder(&out)
			encoder.SetEscapeHTML(false)
			_ = encoder.Encode(s) // a string and a buffer: nothing fails
			return append(b, bytes.TrimSuffix(out.Bytes(), []byte("\n"))...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
