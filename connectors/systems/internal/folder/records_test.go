package folder

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/codec"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

type piece struct {
	At   int64
	Text string
}

func split(t *testing.T, text string, quotes bool) ([]piece, error) {
	t.Helper()
	s := newSplitter(strings.NewReader(text), 0, quotes)
	var out []piece
	for {
		raw, at, err := s.next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, piece{at, string(raw)})
	}
}

func TestRecordsAreSplit(t *testing.T) {
	long := strings.Repeat("x", 3*readAhead)
	for _, c := range []struct {
		name, text string
		quotes     bool
		want       []piece
	}{
		{"nothing", "", false, nil},
		{"lines, the last without its end", "a\nbb\r\nccc", false, []piece{{0, "a"}, {2, "bb"}, {6, "ccc"}}},
		{"empty lines", "\n\na\n", false, []piece{{0, ""}, {1, ""}, {2, "a"}}},
		{"longer than what is read ahead", long + "\nb\n", false, []piece{{0, long}, {int64(len(long)) + 1, "b"}}},
		{"a quote is nothing in a line", "a\"\nb\n", false, []piece{{0, `a"`}, {3, "b"}}},
		{"line ends within quotes", "a,\"1\n2\r\n\"\nb,\"\"\"\n\"\"\"\n", true, []piece{{0, "a,\"1\n2\r\n\""}, {10, "b,\"\"\"\n\"\"\""}}},
	} {
		got, err := split(t, c.text, c.quotes)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

func TestRecordsAreBounded(t *testing.T) {
	for _, c := range []struct {
		text   string
		quotes bool
		want   string
	}{
		{"a\n" + strings.Repeat("x", contract.MaxMessageSize+3), false, "begins at byte 2 is longer"},
		{"a\n\"b\nc", true, "a quote that is not closed"},
	} {
		_, err := split(t, c.text, c.quotes)
		if badly := (*badError)(nil); !errors.As(err, &badly) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

func TestRowsBecomeObjects(t *testing.T) {
	s := &shaper{Options: &Options{Kind: CSV, Format: sdk.FormatJSON, Charset: "windows-1252", Table: codec.CSV{Delimiter: ';', Columns: []string{"b"}}}}
	if err := s.header([]byte("a;b")); err != nil {
		t.Fatal(err)
	}
	for row, want := range map[string]string{"1;\"x;\"\"y\"": `{"a":"1","b":"x;\"y"}`, "M\xfcller;": `{"a":"Müller","b":""}`} {
		got, err := s.body([]byte(row))
		if err != nil || string(got) != want {
			t.Errorf("%q: %s, %v", row, got, err)
		}
	}
	for _, row := range []string{"1", "1;2;3"} {
		if got, err := s.body([]byte(row)); err == nil {
			t.Errorf("%q: %s", row, got)
		}
	}
	for _, header := range []string{"a;a", "a;c", "a;\"b"} {
		if err := s.header([]byte(header)); err == nil {
			t.Errorf("the header %q is taken", header)
		}
	}
}

func TestColumnsOfFixedWidth(t *testing.T) {
	s := &shaper{Options: &Options{Kind: Fixed, Format: sdk.FormatJSON, Columns: []Column{{"id", 3}, {"name", 6}, {"born", 4}}}}
	for line, want := range map[string]string{
		"1  Müller1999":  `{"id":"1","name":"Müller","born":"1999"}`,
		"2  Ng":          `{"id":"2","name":"Ng","born":""}`,
		"3  Ng    2000 ": `{"id":"3","name":"Ng","born":"2000"}`,
	} {
		got, err := s.body([]byte(line))
		if err != nil || string(got) != want {
			t.Errorf("%q: %s, %v", line, got, err)
		}
	}
	if got, err := s.body([]byte("3  Ng    2000x")); err == nil {
		t.Errorf("a line that is too long became %s", got)
	}
}

func TestOptionsThatCannotWork(t *testing.T) {
	good := Options{Folder: "in", Pattern: "*", Done: "in/done", Failed: "in/failed", Kind: Lines, Format: sdk.FormatJSON, MaxFile: 1 << 20}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Options){
		"pattern":       func(o *Options) { o.Pattern = "[" },
		"character set": func(o *Options) { o.Charset = "EBCDIC" },
		"UTF-16":        func(o *Options) { o.Charset = "utf-16le" },
		"charset goes":  func(o *Options) { o.Charset, o.Format = "IBM850", sdk.FormatBinary },
		"rows become":   func(o *Options) { o.Kind, o.Format = CSV, sdk.FormatText },
		"format Binary": func(o *Options) { o.MaxFile = contract.MaxMessageSize + 1 },
		"needs columns": func(o *Options) { o.Kind = Fixed },
		"a name":        func(o *Options) { o.Kind, o.Columns = Fixed, []Column{{"a", 0}} },
		"that is read":  func(o *Options) { o.Failed = "in" },
		"twice":         func(o *Options) { o.Table.Columns = []string{"a", "a"} },
	} {
		o := good
		change(&o)
		if err := o.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
