package codec

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"github.com/twmb/avro"

	"github.com/metip/metip/connectors/sdk"
)

// Avro turns JSON into Avro's binary encoding by a schema, and back. It is safe for concurrent use.
type Avro struct {
	top *avroType
	// magic of the single-object encoding: two bytes, and the fingerprint of the schema. Empty: bodies are the bare encoding.
	magic []byte
}

// avroType is a type of the schema.
type avroType struct {
	kind    avroKind
	logical avroLogical
	// precision and scale of a decimal.
	precision, scale int
	// name that a union tells the type by; full is it with its namespace.
	name, full string
	fields     []avroField
	symbols    []string
	size       int
	// of an array's items or a map's values.
	of       *avroType
	branches []*avroType
	// tagged: a value of the union says in JSON of which branch it is, for there are several besides null.
	tagged bool
}

type avroField struct {
	// name, and quoted as a member of JSON with its colon.
	name   string
	quoted []byte
	t      *avroType
	// fallback is the default, encoded; nil for none.
	fallback []byte
}

type avroKind uint8

const (
	avroNull avroKind = iota
	avroBoolean
	avroInt
	avroLong
	avroFloat
	avroDouble
	avroBytes
	avroString
	avroRecord
	avroEnum
	avroArray
	avroMap
	avroFixed
	avroUnion
)

var avroKinds = map[string]avroKind{
	"null": avroNull, "boolean": avroBoolean, "int": avroInt, "long": avroLong, "float": avroFloat, "double": avroDouble, "bytes": avroBytes,
	"string": avroString, "record": avroRecord, "error": avroRecord, "enum": avroEnum, "array": avroArray, "map": avroMap, "fixed": avroFixed,
	"union": avroUnion,
}

// Bounds of a schema.
const (
	maxAvroSchema = 256 << 10
	maxAvroFixed  = 1 << 20
)

// CompileAvro compiles a schema. singleObject: bodies begin with the schema's fingerprint (Avro's single-object encoding).
func CompileAvro(text string, singleObject bool) (a *Avro, err error) {
	defer func() {
		if r := recover(); r != nil {
			a, err = nil, fmt.Errorf("the schema cannot be compiled: %v", r)
		}
	}()
	if len(text) > maxAvroSchema {
		return nil, fmt.Errorf("the schema is longer than %d KiB", maxAvroSchema>>10)
	}
	if err := sdk.CheckJSON([]byte(text)); err != nil {
		return nil, err
	}
	parsed, err := avro.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("it is no Avro schema: %w", err)
	}
	c := avroCompiler{named: map[string]*avroType{}}
	top, err := c.compile(parsed.Root(), "")
	if err != nil {
		return nil, err
	}
	a = &Avro{top: top}
	if singleObject {
		a.magic = append([]byte{0xc3, 0x01}, parsed.Fingerprint(avro.NewRabin())...)
		// The fingerprint is written with its lowest byte first; hash.Hash gives the highest first.
		for i, j := 2, len(a.magic)-1; i < j; i, j = i+1, j-1 {
			a.magic[i], a.magic[j] = a.magic[j], a.magic[i]
		}
	}
	return a, nil
}

// avroCompiler turns the parsed schema into types.
type avroCompiler struct{ named map[string]*avroType }

func (c *avroCompiler) compile(n *avro.SchemaNode, space string) (*avroType, error) {
	k, known := avroKinds[n.Type]
	if !known {
		return c.lookup(n.Type, space)
	}
	t := &avroType{kind: k, logical: logicalOf(k, n), precision: n.Precision, scale: n.Scale, symbols: n.Symbols, size: n.Size, name: n.Type, full: n.Type}
	if n.Name != "" && (k == avroRecord || k == avroEnum || k == avroFixed) {
		t.name, t.full = n.Name, n.Name
		if i := strings.LastIndexByte(n.Name, '.'); i >= 0 {
			t.name, space = n.Name[i+1:], n.Name[:i]
		} else if space = n.Namespace; space != "" {
			t.full = space + "." + n.Name
		}
		c.named[t.full] = t
	}
	if k == avroFixed && n.Size > maxAvroFixed {
		return nil, fmt.Errorf("the fixed type %.64q has more than %d bytes", t.full, maxAvroFixed)
	}
	var err error
	switch k {
	case avroArray:
		t.of, err = c.compile(n.Items, space)
	case avroMap:
		t.of, err = c.compile(n.Values, space)
	case avroUnion:
		for i := range n.Branches {
			b, err := c.compile(&n.Branches[i], space)
			if err != nil {
				return nil, err
			}
			t.branches = append(t.branches, b)
		}
		others := 0
		for _, b := range t.branches {
			if b.kind != avroNull {
				others++
			}
		}
		t.tagged = others > 1
	case avroRecord:
		err = c.fields(t, n, space)
	}
	return t, err
}

func (c *avroCompiler) lookup(name, space string) (*avroType, error) {
	if !strings.Contains(name, ".") && space != "" {
		if t := c.named[space+"."+name]; t != nil {
			return t, nil
		}
	}
	if t := c.named[name]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("there is no type %.64q", name)
}

func (c *avroCompiler) fields(t *avroType, n *avro.SchemaNode, space string) error {
	t.fields = make([]avroField, len(n.Fields))
	for i := range n.Fields {
		f := &n.Fields[i]
		ft, err := c.compile(&f.Type, space)
		if err != nil {
			return err
		}
		t.fields[i] = avroField{name: f.Name, quoted: append(appendString(nil, f.Name), ':'), t: ft}
		if !f.HasDefault {
			continue
		}
		of, err := f.Type.Schema()
		if err != nil {
			return fmt.Errorf("the type of field %.64q: %w", f.Name, err)
		}
		if t.fields[i].fallback, err = of.Encode(f.Default); err != nil {
			return fmt.Errorf("the default of field %.64q: %w", f.Name, err)
		}
		t.fields[i].fallback = append([]byte{}, t.fields[i].fallback...) // that of null is empty, and not nil
	}
	return nil
}

var errShort = errors.New("the body is not Avro of this schema: it ends too soon")

// JSONToAvro encodes a JSON body.
func (a *Avro) JSONToAvro(body []byte) ([]byte, error) {
	d, err := parseJSON(body)
	if err != nil {
		return nil, err
	}
	e := avroEncoder{document: d, out: append(make([]byte, 0, len(body)), a.magic...)}
	if err := e.encode(a.top, root); err != nil {
		return nil, err
	}
	return e.out, nil
}

// AvroToJSON decodes a body.
func (a *Avro) AvroToJSON(body []byte) ([]byte, error) {
	if !bytes.HasPrefix(body, a.magic) {
		return nil, errors.New("the body is not Avro of this schema: it does not begin with the schema's fingerprint")
	}
	d := avroDecoder{in: body[len(a.magic):], out: make([]byte, 0, 2*len(body))}
	if err := d.decode(a.top); err != nil {
		return nil, err
	}
	if len(d.in) > 0 {
		return nil, errors.New("the body is not Avro of this schema: something follows the value")
	}
	return d.out, nil
}

// appendLong as Avro writes int and long.
func appendLong(out []byte, v int64) []byte {
	u := uint64(v)<<1 ^ uint64(v>>63)
	for u >= 0x80 {
		out = append(out, byte(u)|0x80)
		u >>= 7
	}
	return append(out, byte(u))
}

// readLong reads it, and gives what follows.
func readLong(in []byte) (int64, []byte, error) {
	var u uint64
	for i, b := range in {
		if i == 10 || i == 9 && bits.Len8(b) > 1 {
			return 0, nil, errors.New("the body is not Avro of this schema: a number is too long")
		}
		u |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return int64(u>>1) ^ -int64(u&1), in[i+1:], nil
		}
	}
	return 0, nil, errShort
}
