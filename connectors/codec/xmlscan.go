package codec

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/metip/metip/connectors/sdk"
)

// maxAttributes of one element.
const maxAttributes = 256

// CheckXML tells whether a body is well-formed XML 1.0 without a document type declaration: nothing is ever expanded or fetched. Elements
// nest at most sdk.MaxDepth deep.
func CheckXML(body []byte) error {
	body, err := decodeXML(body, "")
	if err != nil {
		return err
	}
	return checkXML(body)
}

// checkXML of a body that is UTF-8.
func checkXML(body []byte) error {
	s := xmlScanner{in: body}
	if err := s.begin(); err != nil {
		return err
	}
	for {
		t, err := s.next()
		if err != nil || t.kind == xmlEnd {
			return err
		}
	}
}

// xmlKind of a token.
type xmlKind uint8

const (
	// xmlEnd of the document.
	xmlEnd xmlKind = iota
	// xmlOpen and xmlClose of an element; `<a/>` gives both.
	xmlOpen
	xmlClose
	// xmlText within an element, and xmlCData.
	xmlText
	xmlCData
)

// span of the input.
type span struct{ start, end int }

// xmlToken is a name or text where it lies.
type xmlToken struct {
	kind xmlKind
	span
}

// xmlAttribute of the element that was opened last.
type xmlAttribute struct{ name, value span }

// xmlScanner goes through a document, token by token.
type xmlScanner struct {
	in []byte
	at int
	// open elements' names.
	open []span
	// attributes of the element that was opened last.
	attributes []xmlAttribute
	// empty: the element that was opened last is closed at once.
	empty bool
	// rooted: there was an element outside all others.
	rooted bool
}

func (s *xmlScanner) fail(format string, a ...any) error {
	line := 1 + bytes.Count(s.in[:min(s.at, len(s.in))], []byte("\n"))
	return fmt.Errorf("the body is not well-formed XML: line %d: %s", line, fmt.Sprintf(format, a...))
}

// begin checks the characters, and takes the byte order mark and the declaration.
func (s *xmlScanner) begin() error {
	s.in = bytes.TrimPrefix(s.in, []byte("\ufeff"))
	for i := 0; i < len(s.in); {
		c := s.in[i]
		if c >= ' ' && c < utf8.RuneSelf || c == '\n' || c == '\t' || c == '\r' {
			i++
			continue
		}
		r, size := utf8.DecodeRune(s.in[i:])
		if r == utf8.RuneError && size == 1 || !isXMLChar(r) {
			s.at = i
			return s.fail("a character that XML does not have, or bytes that are not UTF-8")
		}
		i += size
	}
	if s.has("<?xml") && len(s.in) > 5 && isXMLSpace(s.in[5]) {
		end := bytes.Index(s.in, []byte("?>"))
		if end < 0 || !isXMLDeclaration(string(s.in[5:end])) {
			return s.fail("the XML declaration is wrong")
		}
		s.at = end + 2
	}
	return nil
}

func (s *xmlScanner) has(text string) bool {
	return len(s.in)-s.at >= len(text) && string(s.in[s.at:s.at+len(text)]) == text
}

// next token.
func (s *xmlScanner) next() (xmlToken, error) {
	if s.empty {
		s.empty = false
		name := s.open[len(s.open)-1]
		s.open = s.open[:len(s.open)-1]
		return xmlToken{xmlClose, name}, nil
	}
	for {
		if s.at == len(s.in) {
			if len(s.open) > 0 {
				return xmlToken{}, s.fail("the element %s is not closed", s.short(s.open[len(s.open)-1]))
			}
			if !s.rooted {
				return xmlToken{}, s.fail("there is no element")
			}
			return xmlToken{}, nil
		}
		if s.in[s.at] != '<' {
			t, err := s.text()
			if err != nil || len(s.open) > 0 {
				return t, err
			}
			continue
		}
		var err error
		switch {
		case s.has("<!--"):
			err = s.comment()
		case s.has("<?"):
			err = s.instruction()
		case s.has("<![CDATA["):
			return s.cdata()
		case s.has("<!"):
			return xmlToken{}, s.fail("a document type declaration (<!DOCTYPE) is not allowed")
		case s.has("</"):
			return s.close()
		default:
			return s.element()
		}
		if err != nil {
			return xmlToken{}, err
		}
	}
}

// text up to the next tag.
func (s *xmlScanner) text() (xmlToken, error) {
	start := s.at
	if i := bytes.IndexByte(s.in[s.at:], '<'); i >= 0 {
		s.at += i
	} else {
		s.at = len(s.in)
	}
	raw := s.in[start:s.at]
	if len(s.open) == 0 {
		if len(bytes.Trim(raw, " \t\r\n")) > 0 {
			return xmlToken{}, s.fail("text outside the element")
		}
		return xmlToken{}, nil
	}
	if bytes.Contains(raw, []byte("]]>")) {
		return xmlToken{}, s.fail("]]> in text")
	}
	return xmlToken{xmlText, span{start, s.at}}, s.references(raw)
}

// references in text and values: of the five entities that XML has, and of characters.
func (s *xmlScanner) references(raw []byte) error {
	for {
		i := bytes.IndexByte(raw, '&')
		if i < 0 {
			return nil
		}
		raw = raw[i+1:]
		_, size := reference(raw)
		if size == 0 {
			return s.fail("a reference that is neither a character's nor one of &lt; &gt; &amp; &apos; &quot;")
		}
		raw = raw[size:]
	}
}

// reference after its &: the character, and how many bytes it takes, its semicolon included; 0 for none.
func reference(raw []byte) (rune, int) {
	end := bytes.IndexByte(raw[:min(len(raw), 40)], ';')
	if end < 1 {
		return 0, 0
	}
	name := string(raw[:end])
	switch name {
	case "lt":
		return '<', end + 1
	case "gt":
		return '>', end + 1
	case "amp":
		return '&', end + 1
	case "apos":
		return '\'', end + 1
	case "quot":
		return '"', end + 1
	}
	digits, base := name[1:], rune(10)
	if name[0] != '#' {
		return 0, 0
	}
	if strings.HasPrefix(digits, "x") {
		digits, base = digits[1:], 16
	}
	if digits == "" {
		return 0, 0
	}
	var r rune
	for _, c := range digits {
		d := digit(c)
		if d >= base || r > utf8.MaxRune {
			return 0, 0
		}
		r = r*base + d
	}
	if !isXMLChar(r) {
		return 0, 0
	}
	return r, end + 1
}

func digit(c rune) rune {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 16
}

func (s *xmlScanner) comment() error {
	i := bytes.Index(s.in[s.at+4:], []byte("--"))
	if i < 0 {
		return s.fail("a comment is not closed")
	}
	s.at += 4 + i + 2
	if !s.has(">") {
		return s.fail("-- in a comment")
	}
	s.at++
	return nil
}

func (s *xmlScanner) instruction() error {
	s.at += 2
	name, err := s.name()
	if err != nil {
		return err
	}
	if strings.EqualFold(string(s.in[name.start:name.end]), "xml") {
		return s.fail("an XML declaration that is not at the beginning")
	}
	i := bytes.Index(s.in[s.at:], []byte("?>"))
	if i < 0 || i > 0 && !isXMLSpace(s.in[s.at]) {
		return s.fail("a processing instruction is wrong")
	}
	s.at += i + 2
	return nil
}

func (s *xmlScanner) cdata() (xmlToken, error) {
	if len(s.open) == 0 {
		return xmlToken{}, s.fail("text outside the element")
	}
	start := s.at + len("<![CDATA[")
	i := bytes.Index(s.in[start:], []byte("]]>"))
	if i < 0 {
		return xmlToken{}, s.fail("a CDATA section is not closed")
	}
	s.at = start + i + 3
	return xmlToken{xmlCData, span{start, start + i}}, nil
}

func (s *xmlScanner) close() (xmlToken, error) {
	s.at += 2
	name, err := s.name()
	if err != nil {
		return xmlToken{}, err
	}
	s.space()
	if !s.has(">") {
		return xmlToken{}, s.fail("a closing tag is wrong")
	}
	s.at++
	if len(s.open) == 0 {
		return xmlToken{}, s.fail("a closing tag without an opening one")
	}
	opened := s.open[len(s.open)-1]
	if !bytes.Equal(s.in[opened.start:opened.end], s.in[name.start:name.end]) {
		return xmlToken{}, s.fail("the element %s is closed as %s", s.short(opened), s.short(name))
	}
	s.open = s.open[:len(s.open)-1]
	return xmlToken{xmlClose, name}, nil
}

func (s *xmlScanner) element() (xmlToken, error) {
	if len(s.open) == 0 && s.rooted {
		return xmlToken{}, s.fail("a second element outside all others")
	}
	if len(s.open) >= sdk.MaxDepth {
		return xmlToken{}, s.fail("elements are nested deeper than %d", sdk.MaxDepth)
	}
	s.rooted = true
	s.at++
	name, err := s.name()
	if err != nil {
		return xmlToken{}, err
	}
	s.attributes = s.attributes[:0]
	for {
		spaced := s.space()
		switch {
		case s.has(">"):
			s.at++
		case s.has("/>"):
			s.at += 2
			s.empty = true
		case !spaced:
			return xmlToken{}, s.fail("the tag of the element %s is wrong", s.short(name))
		default:
			if err := s.attribute(); err != nil {
				return xmlToken{}, err
			}
			continue
		}
		s.open = append(s.open, name)
		return xmlToken{xmlOpen, name}, s.unique()
	}
}

func (s *xmlScanner) attribute() error {
	name, err := s.name()
	if err != nil {
		return err
	}
	s.space()
	if !s.has("=") {
		return s.fail("the attribute %s has no value", s.short(name))
	}
	s.at++
	s.space()
	if !s.has(`"`) && !s.has("'") {
		return s.fail("the value of the attribute %s is not in quotes", s.short(name))
	}
	start := s.at + 1
	end := bytes.IndexByte(s.in[start:], s.in[s.at])
	if end < 0 {
		return s.fail("the value of the attribute %s is not closed", s.short(name))
	}
	raw := s.in[start : start+end]
	if bytes.IndexByte(raw, '<') >= 0 {
		return s.fail("< in the value of the attribute %s", s.short(name))
	}
	if err := s.references(raw); err != nil {
		return err
	}
	s.at = start + end + 1
	s.attributes = append(s.attributes, xmlAttribute{name, span{start, start + end}})
	if len(s.attributes) > maxAttributes {
		return s.fail("an element has more than %d attributes", maxAttributes)
	}
	return nil
}

// unique tells whether no attribute is given twice.
func (s *xmlScanner) unique() error {
	for i, a := range s.attributes {
		for _, b := range s.attributes[:i] {
			if a.name.end-a.name.start == b.name.end-b.name.start && string(s.in[a.name.start:a.name.end]) == string(s.in[b.name.start:b.name.end]) {
				return s.fail("the attribute %s is given twice", s.short(a.name))
			}
		}
	}
	return nil
}

// space is skipped; it tells whether there was any.
func (s *xmlScanner) space() bool {
	from := s.at
	for s.at < len(s.in) && isXMLSpace(s.in[s.at]) {
		s.at++
	}
	return s.at > from
}

func (s *xmlScanner) name() (span, error) {
	start := s.at
	for s.at < len(s.in) {
		c := s.in[s.at]
		if c < utf8.RuneSelf {
			if !isXMLNameByte(c, s.at == start) {
				break
			}
			s.at++
			continue
		}
		r, size := utf8.DecodeRune(s.in[s.at:])
		if !isXMLNameRune(r, s.at == start) {
			break
		}
		s.at += size
	}
	if s.at == start {
		return span{}, s.fail("a name is expected")
	}
	return span{start, s.at}, nil
}

// short form of a name, for errors.
func (s *xmlScanner) short(name span) string {
	text := s.in[name.start:name.end]
	if len(text) > 64 {
		return strings.ToValidUTF8(string(text[:64]), "") + "..."
	}
	return string(text)
}
