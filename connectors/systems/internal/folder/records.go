package folder

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/metip/metip/connectors/codec"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// badError is of a file that cannot be taken in as it is.
type badError struct{ err error }

func (e *badError) Error() string { return e.err.Error() }
func (e *badError) Unwrap() error { return e.err }

func bad(err error) error { return &badError{err} }

// splitter finds lines, or rows, whose line ends within quotes are their own. It holds one of them.
type splitter struct {
	in *bufio.Reader
	// at is where the next one begins.
	at     int64
	quotes bool
	buffer []byte
}

const readAhead = 64 << 10

func newSplitter(in io.Reader, at int64, quotes bool) *splitter {
	return &splitter{in: bufio.NewReaderSize(in, readAhead), at: at, quotes: quotes}
}

// offset of what comes next.
func (s *splitter) offset() int64 { return s.at }

// next one without its line end, and where it began. Its bytes are good until the next call. The last may lack its line end; io.EOF follows.
func (s *splitter) next() ([]byte, int64, error) {
	start, quoted := s.at, false
	s.buffer = s.buffer[:0]
	for {
		piece, err := s.in.ReadSlice('\n')
		s.at += int64(len(piece))
		if len(s.buffer)+len(piece) > contract.MaxMessageSize+2 {
			return nil, start, bad(fmt.Errorf("the record that begins at byte %d is longer than %d bytes", start, contract.MaxMessageSize))
		}
		s.buffer = append(s.buffer, piece...)
		if s.quotes && bytes.Count(piece, []byte{'"'})%2 == 1 {
			quoted = !quoted
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull), err == nil && quoted:
			continue
		case errors.Is(err, io.EOF) && quoted:
			return nil, start, bad(fmt.Errorf("the row that begins at byte %d has a quote that is not closed", start))
		case errors.Is(err, io.EOF) && len(s.buffer) == 0:
			return nil, start, io.EOF
		case err != nil && !errors.Is(err, io.EOF):
			return nil, start, err
		}
		line := bytes.TrimSuffix(s.buffer, []byte{'\n'})
		return bytes.TrimSuffix(line, []byte{'\r'}), start, nil
	}
}

// shaper makes bodies of records.
type shaper struct {
	*Options
	// row is the table with its columns' names.
	row codec.CSV
}

// header takes the first row of a table for the columns' names.
func (s *shaper) header(raw []byte) error {
	text, err := codec.Decode(raw, s.Charset)
	if err != nil {
		return err
	}
	table := codec.CSV{Delimiter: s.Table.Delimiter, NoHeader: true}
	rows, err := table.CSVToJSON(text)
	if err != nil {
		return err
	}
	var names [][]string
	if err := json.Unmarshal(rows, &names); err != nil || len(names) != 1 {
		return errors.New("the first row is no header")
	}
	table.Columns = names[0]
	if err := table.Check(); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, name := range table.Columns {
		seen[name] = true
	}
	for _, name := range s.Table.Columns {
		if !seen[name] {
			return fmt.Errorf("the header does not name the column %.64q", name)
		}
	}
	s.row = table
	return nil
}

// body of a record; nil of one that is empty.
func (s *shaper) body(raw []byte) ([]byte, error) {
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil, nil
	}
	var out []byte
	text, err := s.decode(raw)
	if err != nil {
		return nil, err
	}
	switch s.Kind {
	case CSV:
		if out, err = s.row.CSVToJSON(text); err == nil {
			out = out[1 : len(out)-1]
		}
	case Fixed:
		out, err = s.slice(text)
	default:
		out = bytes.Clone(text)
		err = sdk.CheckFormat(s.Format, out)
	}
	if err == nil && len(out) > contract.MaxMessageSize {
		err = fmt.Errorf("it has %d bytes, more than %d", len(out), contract.MaxMessageSize)
	}
	return out, err
}

// decode what is text. What XML is in it says itself.
func (s *shaper) decode(raw []byte) ([]byte, error) {
	if s.Format != sdk.FormatJSON && s.Format != sdk.FormatText {
		return raw, nil
	}
	return codec.Decode(raw, s.Charset)
}

// slice a line into columns. What is missing at its end is empty, for programs cut off blanks there.
func (s *shaper) slice(line []byte) ([]byte, error) {
	object := make([]byte, 0, 2*len(line)+32*len(s.Columns))
	object = append(object, '{')
	for i, c := range s.Columns {
		end := 0
		for n := 0; n < c.Width && end < len(line); n++ {
			_, size := utf8.DecodeRune(line[end:])
			end += size
		}
		name, err := json.Marshal(c.Name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(string(bytes.Trim(line[:end], " ")))
		if err != nil {
			return nil, err
		}
		if i > 0 {
			object = append(object, ',')
		}
		object = append(append(append(object, name...), ':'), value...)
		line = line[end:]
	}
	if len(bytes.TrimSpace(line)) > 0 {
		return nil, errors.New("the line is longer than its columns together")
	}
	return append(object, '}'), nil
}
