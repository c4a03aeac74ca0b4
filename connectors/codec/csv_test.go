package codec

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCSVAndJSON(t *testing.T) {
	for name, c := range map[string]struct {
		options CSV
		csv     string
		json    string
		back    string
	}{
		"header":            {CSV{}, "a,b\r\n1,x\r\n2,y\r\n", `[{"a":"1","b":"x"},{"a":"2","b":"y"}]`, ""},
		"quotes":            {CSV{}, "a\r\n\"x,\"\"y\"\"\r\nz\"\r\n", `[{"a":"x,\"y\"\r\nz"}]`, ""},
		"empty fields":      {CSV{}, "a,b\r\n,\r\n", `[{"a":"","b":""}]`, ""},
		"empty field alone": {CSV{}, "a\r\n\"\"\r\n", `[{"a":""}]`, ""},
		"header alone":      {CSV{}, "a,b\r\n", `[]`, "-"},
		"nothing":           {CSV{}, "", `[]`, ""},
		"mark, no last end": {CSV{}, "\ufeffa;b\n1;2", `[{"a;b":"1;2"}]`, "a;b\r\n1;2\r\n"},
		"delimiter":         {CSV{Delimiter: ';', LF: true}, "a;b\n1;\"2;3\"\n", `[{"a":"1","b":"2;3"}]`, ""},
		"tab":               {CSV{Delimiter: '\t', LF: true}, "a\tb\n1\t2\n", `[{"a":"1","b":"2"}]`, ""},
		"wide delimiter":    {CSV{Delimiter: '§', LF: true}, "a§b\n1§2\n", `[{"a":"1","b":"2"}]`, ""},
		"quote all":         {CSV{QuoteAll: true, LF: true}, "\"a\"\n\"\"\n", `[{"a":""}]`, ""},
		"no header":         {CSV{NoHeader: true, LF: true}, "1,2\n3,4\n", `[["1","2"],["3","4"]]`, ""},
		"named columns":     {CSV{NoHeader: true, LF: true, Columns: []string{"b", "a"}}, "1,2\n", `[{"b":"1","a":"2"}]`, ""},
		"columns by header": {CSV{LF: true, Columns: []string{"b", "a"}}, "a,b,c\n1,2,3\n", `[{"a":"1","b":"2","c":"3"}]`, "-"},
		"empty lines":       {CSV{LF: true}, "a\n\n1\n\n", `[{"a":"1"}]`, "a\n1\n"},
		"a leading blank":   {CSV{LF: true}, "a\n\" x\"\n", `[{"a":" x"}]`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.options.CSVToJSON([]byte(c.csv))
			if err != nil || string(got) != c.json {
				t.Fatalf("%s, %v; want %s", got, err, c.json)
			}
			if c.back == "-" {
				return
			}
			if c.back == "" {
				c.back = c.csv
			}
			if got, err = c.options.JSONToCSV(got); err != nil || string(got) != c.back {
				t.Errorf("back: %q, %v; want %q", got, err, c.back)
			}
		})
	}
}

func TestJSONToCSV(t *testing.T) {
	for name, c := range map[string]struct {
		options   CSV
		json, csv string
		fails     string
	}{
		"values":            {CSV{LF: true}, `[{"n":1.10,"b":true,"z":null,"s":"x"},{"s":"y"}]`, "n,b,z,s\n1.10,true,,x\n,,,y\n", ""},
		"an object":         {CSV{LF: true}, `{"a":1,"b":2}`, "a,b\n1,2\n", ""},
		"columns":           {CSV{LF: true, Columns: []string{"b", "a", "c"}}, `[{"a":1,"b":2}]`, "b,a,c\n2,1,\n", ""},
		"no rows":           {CSV{LF: true, Columns: []string{"a"}}, `[]`, "a\n", ""},
		"arrays":            {CSV{LF: true, Columns: []string{"a", "b"}}, `[[1,"x"]]`, "a,b\n1,x\n", ""},
		"a member too many": {CSV{}, `[{"a":1},{"a":2,"b":3}]`, "", `row 2: the member "b" is no column`},
		"nested":            {CSV{}, `[{"a":{}}]`, "", "flatten"},
		"fields":            {CSV{Columns: []string{"a"}}, `[[1,2]]`, "", "row 1: has 2 fields"},
		"no fields":         {CSV{}, `[[]]`, "", "no fields"},
		"number":            {CSV{}, `[1]`, "", "neither"},
		"text":              {CSV{}, `"x"`, "", "only an array"},
		"nested array":      {CSV{NoHeader: true}, `[[[]]]`, "", "field 1"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.options.JSONToCSV([]byte(c.json))
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Fatalf("%s, %v; want %q", got, err, c.fails)
				}
				return
			}
			if err != nil || string(got) != c.csv {
				t.Fatalf("%q, %v; want %q", got, err, c.csv)
			}
		})
	}
}

func TestCSVThatIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"a,a\n":              "twice",
		"a,b\n1\n":           "row 1 has 1 fields",
		"a\n\"x":             "not closed",
		"a\nx\"y\n":          "not in quotes",
		"a\n\"x\"y\n":        "follows a field",
		"a\n\xff\n":          "UTF-8",
		"a\nb\n\n\"x\n\"\"y": "line 5",
	} {
		if _, err := new(CSV).CSVToJSON([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := (&CSV{Columns: []string{"z"}}).CSVToJSON([]byte("a\n1\n")); err == nil || !strings.Contains(err.Error(), `does not name the column "z"`) {
		t.Error(err)
	}
	for _, c := range []CSV{{Delimiter: '"'}, {Delimiter: '\n'}, {Delimiter: 0xfffd}, {Columns: []string{"a", "a"}}} {
		if c.Check() == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	long := strings.Repeat("n", 1<<20) + "\n" + strings.Repeat("1\n", 100)
	if _, err := new(CSV).CSVToJSON([]byte(long)); !errors.Is(err, errTooLong) {
		t.Error("a long name, repeated:", err)
	}
	if _, err := new(CSV).CSVToJSON([]byte(strings.Repeat(",", maxColumns+1))); err == nil {
		t.Error("too many columns are taken")
	}
}

// FuzzCSV: rows are those of encoding/csv, but for line ends within quotes, which it changes; and what is written is read again.
func FuzzCSV(f *testing.F) {
	for _, s := range []string{"a,b\n1,2\n", "\"a\"\"b\",c\r\n", "a\n\n\"\"\n", "a,\"x\ny\"\n", ",\n", "a\r,b\n", "a \"\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		c := CSV{NoHeader: true}
		got, err := c.CSVToJSON(body)
		if err != nil {
			return
		}
		var rows [][]string
		if err := json.Unmarshal(got, &rows); err != nil {
			t.Fatalf("%q gives %q: %v", body, got, err)
		}
		if !bytes.Contains(body, []byte("\r")) {
			r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(body, []byte("\ufeff"))))
			r.FieldsPerRecord = -1
			want := [][]string{}
			for {
				record, err := r.Read()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("%q: encoding/csv says %v", body, err)
				}
				want = append(want, record)
			}
			if d := cmp.Diff(want, rows); d != "" {
				t.Fatalf("%q: %s", body, d)
			}
		}
		written, err := c.JSONToCSV(got)
		if err != nil {
			t.Fatalf("%q gives %s: %v", body, got, err)
		}
		again, err := c.CSVToJSON(written)
		if err != nil || !bytes.Equal(got, again) {
			t.Fatalf("%q gives %s, %q and %s: %v", body, got, written, again, err)
		}
	})
}
