package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
)

// UTF8 is the character set of every body that has a format.
const UTF8 = "UTF-8"

// Charsets by their names of IANA.
func Charsets() []string {
	return []string{
		UTF8, "US-ASCII", "UTF-16", "UTF-16LE", "UTF-16BE", "ISO-8859-1", "ISO-8859-2", "ISO-8859-5", "ISO-8859-7", "ISO-8859-9", "ISO-8859-15",
		"windows-1250", "windows-1251", "windows-1252", "windows-1253", "windows-1254", "IBM437", "IBM850", "KOI8-R", "macintosh",
	}
}

// charsetNamed finds a character set, however its name is written: nil for UTF-8, ascii, wide or a *charmap.Charmap.
func charsetNamed(name string) (any, error) {
	switch strings.ToUpper(name) {
	case "", UTF8, "UTF8":
		return nil, nil
	case "US-ASCII", "ASCII":
		return ascii{charmap.ISO8859_1}, nil
	case "UTF-16", "UTF16":
		return wide{order: binary.BigEndian, marked: true}, nil
	case "UTF-16LE":
		return wide{order: binary.LittleEndian}, nil
	case "UTF-16BE":
		return wide{order: binary.BigEndian}, nil
	}
	for _, c := range []struct {
		name string
		*charmap.Charmap
	}{
		{"ISO-8859-1", charmap.ISO8859_1}, {"ISO-8859-2", charmap.ISO8859_2}, {"ISO-8859-5", charmap.ISO8859_5}, {"ISO-8859-7", charmap.ISO8859_7},
		{"ISO-8859-9", charmap.ISO8859_9}, {"ISO-8859-15", charmap.ISO8859_15}, {"windows-1250", charmap.Windows1250},
		{"windows-1251", charmap.Windows1251}, {"windows-1252", charmap.Windows1252}, {"windows-1253", charmap.Windows1253},
		{"windows-1254", charmap.Windows1254}, {"IBM437", charmap.CodePage437}, {"IBM850", charmap.CodePage850}, {"KOI8-R", charmap.KOI8R},
		{"macintosh", charmap.Macintosh},
	} {
		if strings.EqualFold(name, c.name) {
			return c.Charmap, nil
		}
	}
	return nil, fmt.Errorf("the character set %.40q is not known: it may be %s", name, strings.Join(Charsets(), ", "))
}

// CheckCharset tells whether there is such a character set.
func CheckCharset(name string) error {
	_, err := charsetNamed(name)
	return err
}

// ascii is the half of ISO 8859-1 that everybody has.
type ascii struct{ *charmap.Charmap }

// wide is UTF-16.
type wide struct {
	order interface {
		binary.ByteOrder
		binary.AppendByteOrder
	}
	// marked: a byte order mark says the order.
	marked bool
}

func (w wide) decode(body []byte, charset string) ([]byte, error) {
	if len(body)%2 != 0 {
		return nil, fmt.Errorf("the body is not %s: it has an odd number of bytes", charset)
	}
	order := binary.ByteOrder(w.order)
	if len(body) > 1 && w.marked && body[0] == 0xff && body[1] == 0xfe {
		order = binary.LittleEndian
	}
	out := make([]byte, 0, len(body)+len(body)/2)
	for i := 0; i < len(body); i += 2 {
		r := rune(order.Uint16(body[i:]))
		if i == 0 && r == '\ufeff' {
			continue
		}
		if utf16.IsSurrogate(r) {
			if i += 2; i == len(body) {
				return nil, fmt.Errorf("the body is not %s: it ends within a character", charset)
			}
			if r = utf16.DecodeRune(r, rune(order.Uint16(body[i:]))); r == utf8.RuneError {
				return nil, fmt.Errorf("the body is not %s: half a character at byte %d", charset, i-2)
			}
		}
		out = utf8.AppendRune(out, r)
	}
	return out, nil
}

func (w wide) encode(body []byte) []byte {
	out := make([]byte, 0, 2*len(body)+2)
	if w.marked {
		out = append(out, 0xfe, 0xff)
	}
	var units [2]uint16
	for _, r := range string(body) {
		for _, u := range utf16.AppendRune(units[:0], r) {
			out = w.order.AppendUint16(out, u)
		}
	}
	return out
}

// Decode a body into UTF-8. The byte order mark is left out.
func Decode(body []byte, charset string) ([]byte, error) {
	c, err := charsetNamed(charset)
	if err != nil {
		return nil, err
	}
	switch c := c.(type) {
	case nil:
		if !utf8.Valid(body) {
			return nil, errors.New("the body is not valid UTF-8: name its character set in charset.from")
		}
		return bytes.TrimPrefix(body, []byte("\ufeff")), nil
	case ascii:
		if slices.ContainsFunc(body, func(b byte) bool { return b >= utf8.RuneSelf }) {
			return nil, errors.New("the body has bytes that are not US-ASCII")
		}
		return body, nil
	case *charmap.Charmap:
		return decodeBytes(body, c, charset)
	case wide:
		return c.decode(body, charset)
	}
	return nil, fmt.Errorf("the character set %.40q is not known", charset)
}

func decodeBytes(body []byte, c *charmap.Charmap, name string) ([]byte, error) {
	out := make([]byte, 0, len(body)+len(body)/8)
	for i, b := range body {
		if b < utf8.RuneSelf {
			out = append(out, b)
			continue
		}
		r := c.DecodeByte(b)
		if r == utf8.RuneError {
			return nil, fmt.Errorf("the body is not %s: byte %d is none of its characters", name, i)
		}
		out = utf8.AppendRune(out, r)
	}
	return out, nil
}

// Encode a body that is UTF-8 into another character set. A character that it does not have is an error.
func Encode(body []byte, charset string) ([]byte, error) { return encodeCharset(body, charset, nil) }

// encodeCharset writes what the character set does not have as instead says, if there is a way.
func encodeCharset(body []byte, charset string, instead func(rune) (string, bool)) ([]byte, error) {
	c, err := charsetNamed(charset)
	if err != nil || c == nil {
		return body, err
	}
	encode, isASCII := (*charmap.Charmap)(nil), false
	switch c := c.(type) {
	case ascii:
		encode, isASCII = c.Charmap, true
	case *charmap.Charmap:
		encode = c
	case wide:
		return c.encode(body), nil
	}
	out := make([]byte, 0, len(body))
	for i := 0; i < len(body); {
		if body[i] < utf8.RuneSelf {
			out = append(out, body[i])
			i++
			continue
		}
		r, size := utf8.DecodeRune(body[i:])
		i += size
		if b, ok := encode.EncodeRune(r); ok && !isASCII {
			out = append(out, b)
			continue
		}
		if instead == nil {
			return nil, fmt.Errorf("%s does not have the character %U", charset, r)
		}
		text, ok := instead(r)
		if !ok {
			return nil, fmt.Errorf("%s does not have the character %U", charset, r)
		}
		out = append(out, text...)
	}
	return out, nil
}

// decodeXML makes UTF-8 of XML: of the character set that is given, else of the one that the byte order mark or the declaration names.
func decodeXML(body []byte, charset string) ([]byte, error) {
	if charset == "" {
		charset = declaredCharset(body)
	}
	return Decode(body, charset)
}

func declaredCharset(body []byte) string {
	switch {
	case bytes.HasPrefix(body, []byte{0xff, 0xfe}), bytes.HasPrefix(body, []byte{0xfe, 0xff}):
		return "UTF-16"
	case bytes.HasPrefix(body, []byte{'<', 0}):
		return "UTF-16LE"
	case bytes.HasPrefix(body, []byte{0, '<'}):
		return "UTF-16BE"
	}
	head := bytes.TrimPrefix(body[:min(len(body), 256)], []byte("\ufeff"))
	if !bytes.HasPrefix(head, []byte("<?xml")) {
		return UTF8
	}
	end := bytes.Index(head, []byte("?>"))
	if end < 0 {
		return UTF8
	}
	m := xmlDeclaration.FindSubmatch(head[len("<?xml"):end])
	if m == nil {
		return UTF8
	}
	if name := string(m[1]) + string(m[2]); name != "" {
		return name
	}
	return UTF8
}
