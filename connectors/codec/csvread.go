package codec

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// csvReader reads a table row by row, as RFC 4180 has it; rows may end with a line feed alone, and empty lines are skipped. What is within
// quotes is kept to the byte, line ends included.
type csvReader struct {
	in        []byte
	at        int
	delimiter []byte
	// fields of the last row; their bytes are the body's own, or in cooked.
	fields [][]byte
	cooked []byte
}

func newCSVReader(body []byte, delimiter rune) *csvReader {
	return &csvReader{in: bytes.TrimPrefix(body, []byte("\ufeff")), delimiter: utf8.AppendRune(nil, delimiter)}
}

func (r *csvReader) fail(what string) error {
	return fmt.Errorf("the body is not CSV: line %d: %s", 1+bytes.Count(r.in[:min(r.at, len(r.in))], []byte{'\n'}), what)
}

// next row into fields; false at the end.
func (r *csvReader) next() (bool, error) {
	r.fields, r.cooked = r.fields[:0], r.cooked[:0]
	for r.lineEnd() {
	}
	if r.at == len(r.in) {
		return false, nil
	}
	for {
		var err error
		if r.in[min(r.at, len(r.in)-1)] == '"' && r.at < len(r.in) {
			err = r.quoted()
		} else {
			err = r.plain()
		}
		if err != nil {
			return false, err
		}
		if len(r.fields) > maxColumns {
			return false, r.fail(fmt.Sprintf("a row has more than %d fields", maxColumns))
		}
		switch {
		case bytes.HasPrefix(r.in[r.at:], r.delimiter):
			r.at += len(r.delimiter)
		case r.at == len(r.in) || r.lineEnd():
			return true, nil
		default:
			return false, r.fail("something follows a field in quotes")
		}
	}
}

// lineEnd steps over the end of a line, if there is one.
func (r *csvReader) lineEnd() bool {
	switch rest := r.in[r.at:]; {
	case len(rest) > 0 && rest[0] == '\n':
		r.at++
	case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
		r.at += 2
	default:
		return false
	}
	return true
}

func (r *csvReader) plain() error {
	start := r.at
	for ; r.at < len(r.in); r.at++ {
		switch c := r.in[r.at]; {
		case c == '\n', c == '\r' && r.at+1 < len(r.in) && r.in[r.at+1] == '\n', c == r.delimiter[0] && bytes.HasPrefix(r.in[r.at:], r.delimiter):
			r.fields = append(r.fields, r.in[start:r.at])
			return nil
		case c == '"':
			return r.fail(`a " within a field that is not in quotes`)
		}
	}
	r.fields = append(r.fields, r.in[start:r.at])
	return nil
}

func (r *csvReader) quoted() error {
	r.at++
	start, from, cooked := r.at, len(r.cooked), false
	for {
		i := bytes.IndexByte(r.in[r.at:], '"')
		if i < 0 {
			r.at = len(r.in)
			return r.fail(`a field in quotes is not closed`)
		}
		r.at += i + 1
		if r.at == len(r.in) || r.in[r.at] != '"' {
			break
		}
		// Two quotes are one: what comes before goes to cooked, the second quote stays.
		cooked = true
		r.cooked = append(r.cooked, r.in[start:r.at]...)
		r.at++
		start = r.at
	}
	field := r.in[start : r.at-1]
	if cooked {
		r.cooked = append(r.cooked, field...)
		field = r.cooked[from:len(r.cooked):len(r.cooked)]
	}
	r.fields = append(r.fields, field)
	return nil
}
