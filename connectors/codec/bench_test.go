package codec

import (
	"strings"
	"testing"
)

// record of 1 KiB.
var record = []byte(`{"arrest":{"@id":"A-12345","when":"2026-11-22T23:59:00Z","person":{"surname":"Doe","forename":"Jane","age":30},"offences":[{"code":"TH68001","count":2},{"code":"CJ88159","count":1}],"note":"` +
	strings.Repeat("x", 820) + `"}}`)

func BenchmarkCodecs(b *testing.B) {
	var x XML
	asXML, err := x.JSONToXML(record, "")
	if err != nil {
		b.Fatal(err)
	}
	row := `{"arrestId":"A-12345","when":"2026-11-22T23:59:00Z","surname":"Doe","forename":"Jane","age":"30","note":"` + strings.Repeat("x", 70) + `"}`
	rows := []byte("[" + strings.Repeat(row+",", 5) + row + "]")
	var c CSV
	asCSV, err := c.JSONToCSV(rows)
	if err != nil {
		b.Fatal(err)
	}
	a := mustAvro(b, arrestSchema())
	flat := []byte(`{"id":"A-12345","number":9007199254740993,"maybe":5,"fine":12.30,"at":"2026-11-22T23:59:00.000Z","day":"2026-11-22","ratio":0.25,"tags":["a","b"],"officer":{"name":"` + strings.Repeat("x", 840) + `"}}`)
	asAvro, err := a.JSONToAvro(flat)
	if err != nil {
		b.Fatal(err)
	}
	latin, err := Encode([]byte(strings.Repeat("Zürich, Genève, Århus. ", 45)), "ISO-8859-1")
	if err != nil {
		b.Fatal(err)
	}
	for _, bench := range []struct {
		name string
		in   []byte
		run  func([]byte) ([]byte, error)
	}{
		{"CheckXML", asXML, func(in []byte) ([]byte, error) { return nil, CheckXML(in) }},
		{"XMLToJSON", asXML, func(in []byte) ([]byte, error) { return x.XMLToJSON(in, "") }},
		{"JSONToXML", record, func(in []byte) ([]byte, error) { return x.JSONToXML(in, "") }},
		{"CSVToJSON", asCSV, c.CSVToJSON},
		{"JSONToCSV", rows, c.JSONToCSV},
		{"AvroToJSON", asAvro, a.AvroToJSON},
		{"JSONToAvro", flat, a.JSONToAvro},
		{"Decode ISO-8859-1", latin, func(in []byte) ([]byte, error) { return Decode(in, "ISO-8859-1") }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.SetBytes(int64(len(bench.in)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := bench.run(bench.in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
