package codec

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/metip/metip/connectors/sdk"
)

// avroDecoder writes values of Avro's binary encoding as JSON.
type avroDecoder struct {
	in, out []byte
	// depth of objects and arrays that are open.
	depth int
}

var errNotAvro = errors.New("the body is not Avro of this schema")

func (d *avroDecoder) fail(what string) error { return fmt.Errorf("%w: %s", errNotAvro, what) }

// take bytes of the body.
func (d *avroDecoder) take(n int64) ([]byte, error) {
	if n < 0 || n > int64(len(d.in)) {
		return nil, errShort
	}
	out := d.in[:n]
	d.in = d.in[n:]
	return out, nil
}

func (d *avroDecoder) long() (v int64, err error) {
	v, d.in, err = readLong(d.in)
	return v, err
}

func (d *avroDecoder) decode(t *avroType) error {
	if len(d.out) > maxOutput {
		return errTooLong
	}
	if t.kind == avroRecord || t.kind == avroArray || t.kind == avroMap || t.tagged {
		if d.depth++; d.depth > sdk.MaxDepth {
			return d.fail(fmt.Sprintf("values are nested deeper than %d", sdk.MaxDepth))
		}
		defer func() { d.depth-- }()
	}
	switch t.kind {
	case avroNull:
		d.out = append(d.out, "null"...)
		return nil
	case avroBoolean:
		b, err := d.take(1)
		if err != nil || b[0] > 1 {
			return d.fail("a boolean is neither 0 nor 1")
		}
		d.out = strconv.AppendBool(d.out, b[0] == 1)
		return nil
	case avroInt, avroLong:
		return d.whole(t)
	case avroFloat, avroDouble:
		return d.float(t)
	case avroBytes, avroFixed:
		return d.bytes(t)
	case avroString:
		return d.text()
	case avroEnum:
		i, err := d.long()
		if err != nil {
			return err
		}
		if i < 0 || i >= int64(len(t.symbols)) {
			return d.fail("an enum has no such symbol")
		}
		d.out = appendString(d.out, t.symbols[i])
		return nil
	case avroRecord:
		d.out = append(d.out, '{')
		for i := range t.fields {
			if i > 0 {
				d.out = append(d.out, ',')
			}
			d.out = append(d.out, t.fields[i].quoted...)
			if err := d.decode(t.fields[i].t); err != nil {
				return err
			}
		}
		d.out = append(d.out, '}')
		return nil
	case avroUnion:
		return d.union(t)
	default:
		return d.items(t)
	}
}

func (d *avroDecoder) whole(t *avroType) error {
	v, err := d.long()
	if err != nil {
		return err
	}
	if t.kind == avroInt && v != int64(int32(v)) {
		return d.fail("an int has more than 32 bits")
	}
	if t.logical != logicalNone {
		d.out = t.logical.appendTime(d.out, v)
	} else {
		d.out = strconv.AppendInt(d.out, v, 10)
	}
	return nil
}

func (d *avroDecoder) float(t *avroType) error {
	size := 64
	if t.kind == avroFloat {
		size = 32
	}
	raw, err := d.take(int64(size / 8))
	if err != nil {
		return err
	}
	var v float64
	if size == 32 {
		v = float64(math.Float32frombits(binary.LittleEndian.Uint32(raw)))
	} else {
		v = math.Float64frombits(binary.LittleEndian.Uint64(raw))
	}
	switch {
	case math.IsNaN(v):
		d.out = append(d.out, `"NaN"`...)
	case math.IsInf(v, 1):
		d.out = append(d.out, `"Infinity"`...)
	case math.IsInf(v, -1):
		d.out = append(d.out, `"-Infinity"`...)
	default:
		d.out = strconv.AppendFloat(d.out, v, 'g', -1, size)
	}
	return nil
}

func (d *avroDecoder) bytes(t *avroType) error {
	n := int64(t.size)
	if t.kind == avroBytes {
		var err error
		if n, err = d.long(); err != nil {
			return err
		}
	}
	raw, err := d.take(n)
	if err != nil {
		return err
	}
	switch t.logical {
	case logicalDecimal:
		if len(raw) > 8+t.precision/2 {
			return d.fail("a decimal has more digits than its precision")
		}
		d.out = appendDecimal(d.out, raw, t.scale)
	case logicalUUID:
		digits := hex.EncodeToString(raw)
		d.out = append(d.out, '"')
		for i, end := 0, 0; i < 5; i++ {
			begin := end
			end += [5]int{8, 4, 4, 4, 12}[i]
			if i > 0 {
				d.out = append(d.out, '-')
			}
			d.out = append(d.out, digits[begin:end]...)
		}
		d.out = append(d.out, '"')
	default:
		text := make([]rune, len(raw))
		for i, b := range raw {
			text[i] = rune(b)
		}
		d.out = appendString(d.out, string(text))
	}
	return nil
}

func (d *avroDecoder) text() error {
	n, err := d.long()
	if err != nil {
		return err
	}
	raw, err := d.take(n)
	if err != nil {
		return err
	}
	if !utf8.Valid(raw) {
		return d.fail("a string is not valid UTF-8")
	}
	d.out = appendString(d.out, string(raw))
	return nil
}

// union: a value of null or of the only other branch as it is, of others with the branch's name.
func (d *avroDecoder) union(t *avroType) error {
	i, err := d.long()
	if err != nil {
		return err
	}
	if i < 0 || i >= int64(len(t.branches)) {
		return d.fail("a union has no such branch")
	}
	b := t.branches[i]
	if !t.tagged || b.kind == avroNull {
		return d.decode(b)
	}
	d.out = append(appendString(append(d.out, '{'), b.full), ':')
	if err := d.decode(b); err != nil {
		return err
	}
	d.out = append(d.out, '}')
	return nil
}

// items of an array, or members of a map, in any number of blocks.
func (d *avroDecoder) items(t *avroType) error {
	open, shut := byte('['), byte(']')
	var seen map[string]struct{}
	if t.kind == avroMap {
		open, shut, seen = '{', '}', map[string]struct{}{}
	}
	d.out = append(d.out, open)
	for first := true; ; {
		count, err := d.long()
		if err != nil {
			return err
		}
		if count == 0 {
			break
		}
		if count < 0 { // the block's size in bytes follows, for those who skip
			if count == math.MinInt64 {
				return d.fail("a block has too many items")
			}
			if count = -count; count > 0 {
				if _, err := d.long(); err != nil {
					return err
				}
			}
		}
		for ; count > 0; count-- {
			if !first {
				d.out = append(d.out, ',')
			}
			first = false
			if seen != nil {
				if err := d.key(seen); err != nil {
					return err
				}
			}
			if err := d.decode(t.of); err != nil {
				return err
			}
		}
	}
	d.out = append(d.out, shut)
	return nil
}

// key of a map's member.
func (d *avroDecoder) key(seen map[string]struct{}) error {
	n, err := d.long()
	if err != nil {
		return err
	}
	raw, err := d.take(n)
	if err != nil {
		return err
	}
	if _, twice := seen[string(raw)]; twice || !utf8.Valid(raw) {
		return d.fail("a map has a key twice, or one that is not valid UTF-8")
	}
	seen[string(raw)] = struct{}{}
	d.out = append(appendString(d.out, string(raw)), ':')
	return nil
}
