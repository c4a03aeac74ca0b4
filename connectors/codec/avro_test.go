package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/avro"

	"github.com/metip/metip/connectors/sdk"
)

const arrestAvro = `{"type":"record","name":"Arrest","namespace":"police","fields":[
 {"name":"id","type":"string"},
 {"name":"number","type":"long"},
 {"name":"small","type":"int","default":7},
 {"name":"maybe","type":["null","int"],"default":null},
 {"name":"any","type":["null","long","string","police.Kind",{"type":"map","values":"double"}],"default":null},
 {"name":"fine","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2},"default":"\u0000"},
 {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"},"default":0},
 {"name":"day","type":{"type":"int","logicalType":"date"},"default":0},
 {"name":"raw","type":"bytes","default":""},
 {"name":"ratio","type":"double","default":0.5},
 {"name":"ok","type":"boolean","default":true},
 {"name":"tags","type":{"type":"array","items":"string"},"default":[]},
 {"name":"officer","type":["null",{"type":"record","name":"Person","fields":[{"name":"name","type":"string"},{"name":"boss","type":["null","Person"],"default":null}]}],"default":null}
]}`

func arrestSchema() string {
	return strings.Replace(arrestAvro, `"police.Kind"`, `{"type":"enum","name":"Kind","symbols":["WARRANT","CHARGE"]}`, 1)
}

func mustAvro(t testing.TB, schema string) *Avro {
	t.Helper()
	a, err := CompileAvro(schema, false)
	if err != nil {
		t.Fatalf("%s: %v", schema, err)
	}
	return a
}

func TestAvroAndJSON(t *testing.T) {
	const rest = `,"fine":0.00,"at":"1970-01-01T00:00:00.000Z","day":"1970-01-01","raw":"","ratio":0.5,"ok":true,"tags":[],"officer":null}`
	for name, c := range map[string]struct{ schema, json, back string }{
		"defaults":  {arrestSchema(), `{"number":9007199254740993,"id":"é"}`, `{"id":"é","number":9007199254740993,"small":7,"maybe":null,"any":null` + rest},
		"unions":    {arrestSchema(), `{"id":"","number":-1,"small":2147483647,"maybe":5,"any":"x"}`, `{"id":"","number":-1,"small":2147483647,"maybe":5,"any":{"string":"x"}` + rest},
		"tagged":    {arrestSchema(), `{"id":"","number":0,"small":0,"maybe":{"int":5},"any":{"police.Kind":"CHARGE"}}`, `{"id":"","number":0,"small":0,"maybe":5,"any":{"police.Kind":"CHARGE"}` + rest},
		"short tag": {arrestSchema(), `{"id":"","number":0,"small":0,"any":{"Kind":"CHARGE"}}`, `{"id":"","number":0,"small":0,"maybe":null,"any":{"police.Kind":"CHARGE"}` + rest},
		"a map":     {arrestSchema(), `{"id":"","number":0,"any":{"b":1,"a":1.5e3}}`, `{"id":"","number":0,"small":7,"maybe":null,"any":{"map":{"b":1,"a":1500}}` + rest},
		"all": {arrestSchema(), `{"id":"A-1","number":1e3,"small":-2.0,"fine":"-12.3","at":"2026-11-23T01:02:03.004+01:00","day":"2026-11-23","raw":"\u0000ÿ","ratio":-0.1,"ok":false,"tags":["a",""],"officer":{"name":"Doe","boss":{"name":"Roe","boss":null}}}`,
			`{"id":"A-1","number":1000,"small":-2,"maybe":null,"any":null,"fine":-12.30,"at":"2026-11-23T00:02:03.004Z","day":"2026-11-23","raw":"\u0000ÿ","ratio":-0.1,"ok":false,"tags":["a",""],"officer":{"name":"Doe","boss":{"name":"Roe","boss":null}}}`},
		"times": {`{"type":"array","items":{"type":"long","logicalType":"timestamp-micros"}}`, `["0001-01-01T00:00:00Z","9999-12-31T23:59:59.999999Z",9223372036854775807,-1]`,
			`["0001-01-01T00:00:00.000000Z","9999-12-31T23:59:59.999999Z",9223372036854775807,"1969-12-31T23:59:59.999999Z"]`},
		"nanoseconds":    {`{"type":"long","logicalType":"timestamp-nanos"}`, `"2026-11-23T00:00:00.123456789Z"`, `"2026-11-23T00:00:00.123456789Z"`},
		"local":          {`{"type":"long","logicalType":"local-timestamp-millis"}`, `"2026-11-23T00:00:00.5"`, `"2026-11-23T00:00:00.500"`},
		"time of day":    {`{"type":"array","items":{"type":"int","logicalType":"time-millis"}}`, `["23:59:59.999",86400000]`, `["23:59:59.999",86400000]`},
		"time of day, µ": {`{"type":"long","logicalType":"time-micros"}`, `"00:00:00.000001"`, `"00:00:00.000001"`},
		"dates":          {`{"type":"array","items":{"type":"int","logicalType":"date"}}`, `["0001-01-01",2147483647]`, `["0001-01-01",2147483647]`},
		"uuid":           {`{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}`, `"12345678-9abc-def0-1234-56789abcdef0"`, `"12345678-9abc-def0-1234-56789abcdef0"`},
		"fixed decimal":  {`{"type":"array","items":{"type":"fixed","name":"D","size":3,"logicalType":"decimal","precision":6,"scale":6}}`, `[-0.000001,0.999999,"-0.999999",0]`, `[-0.000001,0.999999,-0.999999,0.000000]`},
		"whole decimal":  {`{"type":"bytes","logicalType":"decimal","precision":30,"scale":0}`, `-128`, `-128`},
		"fixed":          {`{"type":"fixed","name":"F","size":2}`, `"aÿ"`, `"aÿ"`},
		"floats":         {`{"type":"array","items":"float"}`, `[0.1,1e30,-0,"NaN","Infinity","-Infinity"]`, `[0.1,1e+30,-0,"NaN","Infinity","-Infinity"]`},
		"enum":           {`{"type":"enum","name":"E","symbols":["A","B"]}`, `"B"`, `"B"`},
		"null":           {`"null"`, `null`, `null`},
		"same namespace": {`{"type":"record","name":"a.b.R","fields":[{"name":"e","type":{"type":"enum","name":"E","symbols":["A"]}},{"name":"f","type":"E"},{"name":"g","type":{"type":"record","name":"c.S","fields":[{"name":"h","type":["null","S"]},{"name":"i","type":"a.b.E"}]}}]}`,
			`{"e":"A","f":"A","g":{"h":{"i":"A"},"i":"A"}}`, `{"e":"A","f":"A","g":{"h":{"h":null,"i":"A"},"i":"A"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			a := mustAvro(t, c.schema)
			encoded, err := a.JSONToAvro([]byte(c.json))
			if err != nil {
				t.Fatal(err)
			}
			got, err := a.AvroToJSON(encoded)
			if err != nil || string(got) != c.back {
				t.Fatalf("%s, %v\nwant %s", got, err, c.back)
			}
			again, err := a.JSONToAvro(got)
			if err != nil || !bytes.Equal(encoded, again) {
				t.Errorf("%x, then %x: %v", encoded, again, err)
			}
			// The library reads the same.
			s := avro.MustParse(c.schema)
			var theirs any
			if left, err := s.Decode(encoded, &theirs); err != nil || len(left) > 0 {
				t.Fatalf("the library cannot read %x: %v", encoded, err)
			}
		})
	}
}

func TestAvroRefuses(t *testing.T) {
	arrest := mustAvro(t, arrestSchema())
	for body, want := range map[string]string{
		`{"number":1}`:                                                   "/id is missing",
		`{"id":"x","number":1,"other":1}`:                                `the body has the member "other"`,
		`{"id":1,"number":1}`:                                            "/id is not of the type string",
		`{"id":"x","number":1.5}`:                                        "/number is no whole number",
		`{"id":"x","number":9223372036854775808}`:                        "/number is no whole number",
		`{"id":"x","number":1e99999999}`:                                 "/number is no whole number",
		`{"id":"x","number":1,"small":2147483648}`:                       "32 bits",
		`{"id":"x","number":1,"any":[]}`:                                 "none of the union's types",
		`{"id":"x","number":1,"any":{"police.Kind":"X"}}`:                "none of the symbols",
		`{"id":"x","number":1,"fine":0.001}`:                             "no decimal of 12 digits",
		`{"id":"x","number":1,"fine":10000000000}`:                       "no decimal of 12 digits",
		`{"id":"x","number":1,"fine":1e2}`:                               "no decimal",
		`{"id":"x","number":1,"at":"2026-11-23T01:02:03.0004Z"}`:         "finer",
		`{"id":"x","number":1,"at":"SECRET"}`:                            "is no time",
		`{"id":"x","number":1,"day":"2026-02-30"}`:                       "is no date",
		`{"id":"x","number":1,"raw":"Ā"}`:                                "beyond U+00FF",
		`{"id":"x","number":1,"ratio":1e400}`:                            "beyond what a double",
		`{"id":"x","number":1,"ok":"true"}`:                              "/ok is not of the type boolean",
		`{"id":"x","number":1,"tags":["a",1]}`:                           "/tags/1 is not of the type string",
		`{"id":"x","number":1,"officer":{"name":"x","boss":{"name":5}}}`: "/officer/boss/name",
		`[]`: "the body is not of the type",
		`{`:  "not JSON",
	} {
		if _, err := arrest.JSONToAvro([]byte(body)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
	for schema, want := range map[string]string{
		`{"type":"record","name":"R","fields":[{"name":"a","type":"nope"}]}`: "nope",
		`{`: "JSON at byte 1", `"recor"`: "recor", `{"type":"fixed","name":"F","size":2000000}`: "1048576",
		`{"type":"record","name":"R","fields":[{"name":"a","type":"int","default":"x"}]}`: "default",
	} {
		if _, err := CompileAvro(schema, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", schema, err, want)
		}
	}
	for name, c := range map[string]struct{ schema, body, want string }{
		"short":             {`"string"`, "\x04a", "ends too soon"},
		"long length":       {`"bytes"`, "\xff\xff\xff\xff\x0f", "ends too soon"},
		"negative length":   {`"bytes"`, "\x01", "ends too soon"},
		"long number":       {`"long"`, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "too long"},
		"more than 32 bits": {`"int"`, "\xff\xff\xff\xff\xff\x0f", "32 bits"},
		"no symbol":         {`{"type":"enum","name":"E","symbols":["A"]}`, "\x02", "no such symbol"},
		"no branch":         {`["null","int"]`, "\x04", "no such branch"},
		"boolean":           {`"boolean"`, "\x02", "neither"},
		"text":              {`"string"`, "\x02\xff", "UTF-8"},
		"something follows": {`"null"`, "\x00", "follows"},
		"key twice":         {`{"type":"map","values":"null"}`, "\x04\x02a\x02a\x00", "twice"},
		"endless itself":    {`{"type":"record","name":"R","fields":[{"name":"r","type":"R"}]}`, "", "deeper"},
		"many nothings":     {`{"type":"array","items":"null"}`, "\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "longer than"},
		"the least block":   {`{"type":"array","items":"null"}`, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "too many"},
		"long decimal":      {`{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}`, "\x80\x01" + strings.Repeat("x", 64), "precision"},
	} {
		if got, err := mustAvro(t, c.schema).AvroToJSON([]byte(c.body)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %.100s, %v, want %q", name, got, err, c.want)
		}
	}
}

func TestSingleObjectEncoding(t *testing.T) {
	a, err := CompileAvro(arrestSchema(), true)
	if err != nil {
		t.Fatal(err)
	}
	got, err := a.JSONToAvro([]byte(`{"id":"x","number":1}`))
	if err != nil {
		t.Fatal(err)
	}
	var theirs any
	if _, err := avro.MustParse(arrestSchema()).DecodeSingleObject(got, &theirs); err != nil {
		t.Fatalf("the library cannot read %x: %v", got, err)
	}
	if _, err := a.AvroToJSON(got); err != nil {
		t.Fatal(err)
	}
	got[5]++
	if _, err := a.AvroToJSON(got); err == nil || !strings.Contains(err.Error(), "fingerprint") {
		t.Error("another schema's:", err)
	}
}

// FuzzAvro decodes any bytes by the library and here: both take them or none does, and to the same values.
func FuzzAvro(f *testing.F) {
	schema := arrestSchema()
	a, err := CompileAvro(schema, false)
	if err != nil {
		f.Fatal(err)
	}
	theirs := avro.MustParse(schema)
	for _, s := range []string{`{"id":"x","number":1}`, `{"id":"A-1","number":1e3,"any":{"b":1},"fine":-12.3,"tags":["a"],"officer":{"name":"x"}}`} {
		encoded, err := a.JSONToAvro([]byte(s))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(encoded)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := a.AvroToJSON(body)
		if err != nil {
			return // the library takes strings that are not UTF-8, and booleans above 1
		}
		if err := sdk.CheckJSON(got); err != nil {
			t.Fatalf("%x gives %s: %v", body, got, err)
		}
		var value any
		if left, err := theirs.Decode(body, &value); err != nil || len(left) > 0 {
			if errors.As(err, new(*avro.SemanticError)) && strings.Contains(err.Error(), "limit") {
				return
			}
			t.Fatalf("%x gives %s here, and there %v", body, got, err)
		}
		again, err := a.JSONToAvro(got)
		if err != nil {
			t.Fatalf("%x gives %s, which is refused: %v", body, got, err)
		}
		third, err := a.AvroToJSON(again)
		if err != nil || !bytes.Equal(got, third) {
			t.Fatalf("%x gives %s, %x and %s: %v", body, got, again, third, err)
		}
		// What the library says in JSON of what was encoded here is what it says of the original.
		var other any
		if _, err := theirs.Decode(again, &other); err != nil {
			t.Fatal(err)
		}
		x, errX := theirs.EncodeJSON(value)
		y, errY := theirs.EncodeJSON(other)
		if errX != nil || errY != nil {
			t.Fatal(errX, errY)
		}
		if d := cmp.Diff(unordered(t, x), unordered(t, y)); d != "" {
			t.Fatalf("%x and %x: %s", body, again, d)
		}
	})
}

func unordered(t *testing.T, body []byte) any {
	t.Helper()
	v, err := sdk.DecodeJSON(body)
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return v
}

// FuzzJSONToAvro: what is encoded can be decoded, by the library too.
func FuzzJSONToAvro(f *testing.F) {
	a, err := CompileAvro(arrestSchema(), false)
	if err != nil {
		f.Fatal(err)
	}
	theirs := avro.MustParse(arrestSchema())
	f.Add([]byte(`{"id":"A-1","number":1e3,"small":-2.0,"fine":"-12.3","at":"2026-11-23T01:02:03.004+01:00","day":"2026-11-23","any":{"Kind":"CHARGE"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		encoded, err := a.JSONToAvro(body)
		if err != nil {
			return
		}
		got, err := a.AvroToJSON(encoded)
		if err != nil {
			t.Fatalf("%s gives %x: %v", body, encoded, err)
		}
		var value any
		if left, err := theirs.Decode(encoded, &value); err != nil || len(left) > 0 {
			t.Fatalf("%s gives %x and %s: %v", body, encoded, got, err)
		}
	})
}

func FuzzAvroSchema(f *testing.F) {
	f.Add(arrestSchema())
	f.Add(`["null",{"type":"map","values":{"type":"fixed","name":"F","size":2}}]`)
	f.Fuzz(func(t *testing.T, schema string) {
		a, err := CompileAvro(schema, false)
		if err != nil {
			return
		}
		for _, body := range []string{"null", "{}", "[1]", `"x"`} {
			if encoded, err := a.JSONToAvro([]byte(body)); err == nil {
				if _, err := a.AvroToJSON(encoded); err != nil {
					t.Fatalf("%s: %s gives %x: %v", schema, body, encoded, err)
				}
			}
		}
	})
}

func TestLongs(t *testing.T) {
	for _, v := range []int64{0, -1, 1, -64, 64, math.MaxInt64, math.MinInt64} {
		got, rest, err := readLong(append(appendLong(nil, v), 'x'))
		if got != v || string(rest) != "x" || err != nil {
			t.Errorf("%d: %d, %q, %v", v, got, rest, err)
		}
	}
	if s, err := json.Marshal(math.MaxInt64); err != nil || string(s) != "9223372036854775807" {
		t.Error(string(s), err)
	}
}
