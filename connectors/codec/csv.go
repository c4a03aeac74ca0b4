package codec

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

// CSV says how tables are written.
type CSV struct {
	// Delimiter between fields; 0 means a comma.
	Delimiter rune
	// NoHeader: the first row is no header.
	NoHeader bool
	// Columns by name, in order: what a table without header has, and what is written. Empty: those of the header, or of the first object.
	Columns []string
	// QuoteAll fields, not only those that need it.
	QuoteAll bool
	// LF ends rows with a line feed alone, where CSV is made.
	LF bool
}

// maxColumns of a table.
const maxColumns = 10_000

func (c *CSV) delimiter() rune {
	if c.Delimiter == 0 {
		return ','
	}
	return c.Delimiter
}

// Check the delimiter.
func (c *CSV) Check() error {
	switch d := c.delimiter(); {
	case d == '"' || d == '\r' || d == '\n' || d == utf8.RuneError || !utf8.ValidRune(d):
		return fmt.Errorf("the delimiter cannot be %q", d)
	}
	for i, name := range c.Columns {
		if slices.Contains(c.Columns[:i], name) {
			return fmt.Errorf("the column %.64q is named twice", name)
		}
	}
	return nil
}

// CSVToJSON makes an array of a table: of objects, where the columns have names, else of arrays. All values are strings.
func (c *CSV) CSVToJSON(body []byte) ([]byte, error) {
	if !utf8.Valid(body) {
		return nil, errors.New("the body is not CSV: it is not valid UTF-8")
	}
	r := newCSVReader(body, c.delimiter())
	columns := c.Columns
	if !c.NoHeader {
		more, err := r.next()
		if err != nil {
			return nil, err
		}
		if !more {
			return []byte("[]"), nil
		}
		if columns, err = c.header(r.fields); err != nil {
			return nil, err
		}
	}
	names := make([][]byte, len(columns))
	for i, name := range columns {
		names[i] = append(appendString(nil, name), ':')
	}
	out := append(make([]byte, 0, 2*len(body)), '[')
	for rows := 1; ; rows++ {
		more, err := r.next()
		if err != nil {
			return nil, err
		}
		if !more {
			return append(out, ']'), nil
		}
		if len(names) > 0 && len(r.fields) != len(names) {
			return nil, fmt.Errorf("the body is not CSV: row %d has %d fields, and there are %d columns", rows, len(r.fields), len(names))
		}
		if rows > 1 {
			out = append(out, ',')
		}
		if out = appendRecord(out, names, r.fields); len(out) > maxOutput {
			return nil, errTooLong
		}
	}
}

// header of a table. Where columns are named, it must have them; it may have them in another order.
func (c *CSV) header(fields [][]byte) ([]string, error) {
	seen := make(map[string]struct{}, len(fields))
	header := make([]string, len(fields))
	for i, field := range fields {
		name := string(field)
		header[i] = name
		if _, twice := seen[name]; twice {
			return nil, fmt.Errorf("the header names the column %.64q twice", name)
		}
		seen[name] = struct{}{}
	}
	for _, name := range c.Columns {
		if _, ok := seen[name]; !ok {
			return nil, fmt.Errorf("the header does not name the column %.64q", name)
		}
	}
	return header, nil
}

func appendRecord(out []byte, names [][]byte, record [][]byte) []byte {
	open, shut := byte('['), byte(']')
	if len(names) > 0 {
		open, shut = '{', '}'
	}
	out = append(out, open)
	for i, field := range record {
		if i > 0 {
			out = append(out, ',')
		}
		if len(names) > 0 {
			out = append(out, names[i]...)
		}
		out = appendString(out, field)
	}
	return append(out, shut)
}

// JSONToCSV makes a table of an array of objects, or of arrays; an object alone is one row.
func (c *CSV) JSONToCSV(body []byte) ([]byte, error) {
	d, err := parseJSON(body)
	if err != nil {
		return nil, err
	}
	first := root
	switch d.nodes[root].kind {
	case isArray:
		first = d.nodes[root].first
	case isObject:
	default:
		return nil, errors.New("only an array of objects or arrays, or an object, becomes CSV")
	}
	w := csvWriter{document: d, CSV: c, columns: c.Columns, out: make([]byte, 0, len(body))}
	if len(w.columns) == 0 && first != 0 && d.nodes[first].kind == isObject {
		for m := d.nodes[first].first; m != 0; m = d.nodes[m].next {
			w.columns = append(w.columns, string(d.name(m)))
		}
	}
	if err := w.header(); err != nil {
		return nil, err
	}
	for row := first; row != 0; row = d.nodes[row].next {
		if err := w.row(row); err != nil {
			return nil, err
		}
		if len(w.out) > maxOutput {
			return nil, errTooLong
		}
	}
	return w.out, nil
}

type csvWriter struct {
	*document
	*CSV
	columns []string
	// place of each column, once there are many.
	place map[string]int
	// cells of the row that is written.
	cells []ref
	rows  int
	out   []byte
}

func (w *csvWriter) header() error {
	if len(w.columns) > maxColumns {
		return fmt.Errorf("the table has more than %d columns", maxColumns)
	}
	if len(w.columns) > 16 {
		w.place = make(map[string]int, len(w.columns))
		for i, name := range w.columns {
			w.place[name] = i
		}
	}
	w.cells = make([]ref, len(w.columns))
	if w.NoHeader || len(w.columns) == 0 {
		return nil
	}
	for i, name := range w.columns {
		w.field(i, []byte(name))
	}
	w.end(len(w.columns) == 1 && w.columns[0] == "")
	return nil
}

func (w *csvWriter) row(n ref) error {
	w.rows++
	var err error
	switch w.nodes[n].kind {
	case isObject:
		err = w.object(n)
	case isArray:
		err = w.array(n)
	default:
		err = errors.New("is neither an object nor an array")
	}
	if err != nil {
		return fmt.Errorf("row %d: %w", w.rows, err)
	}
	return nil
}

func (w *csvWriter) object(n ref) error {
	if len(w.columns) == 0 {
		return errors.New("is an object, and the table has no columns")
	}
	clear(w.cells)
	for m := w.nodes[n].first; m != 0; m = w.nodes[m].next {
		name := w.name(m)
		i, ok := w.place[string(name)]
		if w.place == nil {
			i = slices.IndexFunc(w.columns, func(column string) bool { return column == string(name) })
			ok = i >= 0
		}
		if !ok {
			return fmt.Errorf("the member %.64q is no column of the table", name)
		}
		if !w.isScalar(m) {
			return fmt.Errorf("the member %.64q is an object or array: flatten it by a transform before", name)
		}
		w.cells[i] = m
	}
	blank := len(w.cells) == 1
	for i, cell := range w.cells {
		var text []byte
		if cell != 0 {
			text = w.text(cell)
		}
		blank = blank && len(text) == 0
		w.field(i, text)
	}
	w.end(blank)
	return nil
}

func (w *csvWriter) array(n ref) error {
	i, blank := 0, false
	for c := w.nodes[n].first; c != 0; c = w.nodes[c].next {
		if !w.isScalar(c) {
			return fmt.Errorf("field %d is an object or array", i+1)
		}
		text := w.text(c)
		blank = i == 0 && len(text) == 0
		w.field(i, text)
		i++
	}
	if len(w.columns) > 0 && i != len(w.columns) {
		return fmt.Errorf("has %d fields, and the table has %d columns", i, len(w.columns))
	}
	if i == 0 {
		return errors.New("has no fields")
	}
	w.end(blank && i == 1)
	return nil
}

func (w *csvWriter) field(i int, text []byte) {
	if i > 0 {
		w.out = utf8.AppendRune(w.out, w.delimiter())
	}
	if !w.QuoteAll && !w.mustQuote(text) {
		w.out = append(w.out, text...)
		return
	}
	w.out = append(w.out, '"')
	for {
		at := bytes.IndexByte(text, '"')
		if at < 0 {
			break
		}
		w.out = append(append(w.out, text[:at+1]...), '"')
		text = text[at+1:]
	}
	w.out = append(append(w.out, text...), '"')
}

// mustQuote what a reader would take for something else, a blank at the beginning included.
func (w *csvWriter) mustQuote(text []byte) bool {
	return len(text) > 0 && (text[0] == ' ' || text[0] == '\t' || bytes.ContainsAny(text, "\"\r\n") || bytes.ContainsRune(text, w.delimiter()) ||
		bytes.HasPrefix(text, []byte("\ufeff")))
}

// end a row. One that is nothing but an empty field would be skipped by readers.
func (w *csvWriter) end(blank bool) {
	if blank && !w.QuoteAll {
		w.out = append(w.out, `""`...)
	}
	if !w.LF {
		w.out = append(w.out, '\r')
	}
	w.out = append(w.out, '\n')
}
