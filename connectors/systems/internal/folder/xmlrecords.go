package folder

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/metip/metip/connectors/codec"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/xmlns"
)

const (
	// maxTag is the longest start tag around records, or of one.
	maxTag = 64 << 10
	// maxSkipped is the longest comment, instruction or text between records.
	maxSkipped = 64 << 20
)

// Elements says which elements of a document are records.
type Elements struct {
	// Element is their name: Arrest for any prefix, c:Arrest for that one.
	Element string
	// Arrays are names of elements that become arrays of JSON even where there is only one.
	Arrays []string
}

// xmlSplitter finds the elements of one name in a document that may be of any size, and holds one of them. An element within a record is part of it.
type xmlSplitter struct {
	in *bufio.Reader
	at int64
	// from: records that begin before are passed over.
	from    int64
	element string
	// charset that the document says it is in.
	charset string
	// open elements around the records.
	open []around
	// rooted: there was an outermost element.
	rooted bool
	buffer []byte
}

// around is an element that is open.
type around struct {
	name         string
	declarations []xmlns.Declaration
}

func newXMLSplitter(in io.Reader, from int64, element string) *xmlSplitter {
	return &xmlSplitter{in: bufio.NewReaderSize(in, readAhead), from: from, element: element}
}

var encoding = regexp.MustCompile(`\sencoding\s*=\s*["']([A-Za-z0-9._-]+)["']`)

func (s *xmlSplitter) bad(format string, a ...any) error {
	return bad(fmt.Errorf("at byte %d: %w", s.at, fmt.Errorf(format, a...)))
}

// offset of what comes next.
func (s *xmlSplitter) offset() int64 { return s.at }

// next record with the declarations that it needs, and where it began. io.EOF comes after the last.
func (s *xmlSplitter) next() ([]byte, int64, error) {
	for {
		err := s.text()
		if errors.Is(err, io.EOF) {
			switch {
			case len(s.open) > 0:
				return nil, s.at, s.bad("the file ends within the element %.64q", s.open[len(s.open)-1].name)
			case !s.rooted && s.at > 0:
				return nil, s.at, s.bad("there is no element")
			}
			return nil, s.at, io.EOF
		}
		if err != nil {
			return nil, s.at, err
		}
		begin := s.at
		raw, err := s.markup(begin)
		if raw != nil || err != nil {
			return raw, begin, err
		}
	}
}

// text before the next markup. Outside of the outermost element there is none but white space.
func (s *xmlSplitter) text() error {
	for skipped := 0; ; {
		piece, err := s.in.ReadSlice('<')
		text := bytes.TrimSuffix(piece, []byte("<"))
		if s.at == 0 {
			if bytes.HasPrefix(text, []byte("\xfe\xff")) || bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.IndexByte(text, 0) >= 0 {
				return s.bad("records are not found in UTF-16: take whole files, and convert and split them in a Route")
			}
			text = bytes.TrimPrefix(text, []byte("\ufeff"))
		}
		if len(s.open) == 0 && len(bytes.TrimSpace(text)) > 0 {
			return s.bad("it is no XML: there is text outside of elements")
		}
		s.at += int64(len(piece))
		if skipped += len(piece); skipped > maxSkipped {
			return s.bad("there are more than %d bytes without markup", maxSkipped)
		}
		switch {
		case err == nil:
			s.at--
			return s.in.UnreadByte()
		case !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
	}
}

// markup that begins here; a record if it is one.
func (s *xmlSplitter) markup(begin int64) ([]byte, error) {
	s.buffer = s.buffer[:0]
	kind, tag, err := s.token(nil)
	if err != nil {
		return nil, s.cut(err)
	}
	switch kind {
	case tokenOther:
		if begin == 0 && bytes.HasPrefix(tag, []byte("<?xml")) {
			if m := encoding.FindSubmatch(tag); m != nil {
				s.charset = string(m[1])
			}
		}
		return nil, nil
	case tokenClose:
		name := strings.TrimSpace(string(tag[2 : len(tag)-1]))
		if len(s.open) == 0 || s.open[len(s.open)-1].name != name {
			return nil, s.bad("the element %.64q is closed, and not open", name)
		}
		s.open = s.open[:len(s.open)-1]
		return nil, nil
	}
	return s.opened(kind, tag, begin)
}

// opened handles a start tag.
func (s *xmlSplitter) opened(kind tokenKind, tag []byte, begin int64) ([]byte, error) {
	if len(s.open) == 0 && s.rooted {
		return nil, s.bad("there is a second outermost element")
	}
	s.rooted = true
	start, err := startOf(tag, kind)
	if err != nil {
		return nil, s.bad("%w", err)
	}
	name := nameOf(tag)
	var scope []xmlns.Declaration
	if len(s.open) > 0 {
		scope = s.open[len(s.open)-1].declarations
	}
	if !s.is(name) {
		if kind == tokenOpen {
			if len(s.open) == sdk.MaxDepth {
				return nil, s.bad("elements nest more than %d deep", sdk.MaxDepth)
			}
			s.open = append(s.open, around{name, xmlns.Within(scope, start)})
		}
		return nil, nil
	}
	if kind == tokenOpen {
		if err := s.content(begin); err != nil {
			return nil, s.cut(err)
		}
	}
	if begin < s.from {
		return nil, nil
	}
	return xmlns.Detach(s.buffer, start, scope), nil
}

// cut says that the file ends in the middle.
func (s *xmlSplitter) cut(err error) error {
	if errors.Is(err, io.EOF) {
		return s.bad("the file ends within markup or an element")
	}
	return err
}

// content of a record to its end, into the buffer.
func (s *xmlSplitter) content(begin int64) error {
	for depth := 1; depth > 0; {
		if err := s.keepText(begin); err != nil {
			return err
		}
		kind, _, err := s.token(&begin)
		if err != nil {
			return err
		}
		switch kind {
		case tokenOpen:
			depth++
		case tokenClose:
			depth--
		}
	}
	return nil
}

func (s *xmlSplitter) keepText(begin int64) error {
	for {
		piece, err := s.in.ReadSlice('<')
		s.at += int64(len(piece))
		s.buffer = append(s.buffer, piece...)
		if len(s.buffer) > contract.MaxMessageSize {
			return s.tooLong(begin)
		}
		switch {
		case err == nil:
			s.at--
			s.buffer = s.buffer[:len(s.buffer)-1]
			return s.in.UnreadByte()
		case !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
	}
}

func (s *xmlSplitter) tooLong(begin int64) error {
	return bad(fmt.Errorf("the record that begins at byte %d is longer than %d bytes", begin, contract.MaxMessageSize))
}

// is tells whether an element of the name is a record.
func (s *xmlSplitter) is(name string) bool {
	if strings.Contains(s.element, ":") {
		return name == s.element
	}
	return name[strings.IndexByte(name, ':')+1:] == s.element
}

type tokenKind uint8

const (
	// tokenOther is a comment, an instruction or CDATA.
	tokenOther tokenKind = iota
	tokenOpen
	tokenClose
	// tokenEmpty opens an element and closes it.
	tokenEmpty
)

// token of markup, appended to the buffer; what was appended is returned. Within a record, begin says where that begins. Outside of records, what is
// neither a tag nor the beginning of the document is not kept.
func (s *xmlSplitter) token(begin *int64) (tokenKind, []byte, error) {
	first, err := s.in.Peek(9)
	if len(first) < 2 {
		return 0, nil, err
	}
	from := len(s.buffer)
	limit, keep := maxTag, true
	if begin != nil {
		limit = contract.MaxMessageSize
	}
	other := func(end string) (tokenKind, []byte, error) {
		keep = begin != nil || s.at == 0 || end == "?>" && s.at < 4
		err := s.until(end, keep, limit, begin)
		return tokenOther, s.buffer[from:], err
	}
	switch {
	case bytes.HasPrefix(first, []byte("<!--")):
		return other("-->")
	case bytes.HasPrefix(first, []byte("<![CDATA[")):
		return other("]]>")
	case bytes.HasPrefix(first, []byte("<?")):
		return other("?>")
	case bytes.HasPrefix(first, []byte("<!")):
		return 0, nil, s.bad("a document type is refused, so that nothing expands and nothing is fetched")
	}
	if err := s.tag(limit, begin); err != nil {
		return 0, nil, err
	}
	tag := s.buffer[from:]
	switch {
	case tag[1] == '/':
		return tokenClose, tag, nil
	case tag[len(tag)-2] == '/':
		return tokenEmpty, tag, nil
	default:
		return tokenOpen, tag, nil
	}
}

// until an end, which is read too.
func (s *xmlSplitter) until(end string, keep bool, limit int, begin *int64) error {
	var last []byte
	for n := 0; ; {
		piece, err := s.in.ReadSlice('>')
		s.at += int64(len(piece))
		n += len(piece)
		if keep {
			s.buffer = append(s.buffer, piece...)
		}
		switch {
		case keep && begin != nil && len(s.buffer) > limit:
			return s.tooLong(*begin)
		case keep && begin == nil && n > limit, n > maxSkipped:
			return s.bad("a comment or an instruction is longer than is taken")
		}
		last = append(last, piece[max(0, len(piece)-len(end)):]...)
		last = last[max(0, len(last)-len(end)):]
		if err == nil && string(last) == end && n >= len(end)+2 {
			return nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// tag to its end; what is within quotes does not end it.
func (s *xmlSplitter) tag(limit int, begin *int64) error {
	from, quote := len(s.buffer), byte(0)
	for {
		c, err := s.in.ReadByte()
		if err != nil {
			return err
		}
		s.at++
		s.buffer = append(s.buffer, c)
		switch {
		case begin != nil && len(s.buffer) > limit:
			return s.tooLong(*begin)
		case len(s.buffer)-from > maxTag:
			return s.bad("a tag is longer than %d bytes", maxTag)
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '<' && len(s.buffer)-from > 1:
			return s.bad("it is no XML: a tag holds a <")
		case c == '>':
			if len(s.buffer)-from < 3 {
				return s.bad("it is no XML: a tag has no name")
			}
			return nil
		}
	}
}

// nameOf a start tag, with its prefix.
func nameOf(tag []byte) string {
	return string(tag[1 : 1+bytes.IndexAny(tag[1:], " \t\r\n/>")])
}

// startOf an element, for its declarations.
func startOf(tag []byte, kind tokenKind) (*xml.StartElement, error) {
	text := tag
	if kind == tokenOpen {
		text = append(bytes.Clone(tag[:len(tag)-1]), '/', '>')
	}
	d := xml.NewDecoder(bytes.NewReader(bytes.ToValidUTF8(text, []byte("?")))) // names of namespaces are plain
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	start, ok := token.(xml.StartElement)
	if !ok {
		return nil, errors.New("a tag is none")
	}
	return &start, nil
}

// record makes the body of an element: XML in UTF-8, or JSON.
func (s *shaper) record(raw []byte, charset string) ([]byte, error) {
	text, err := codec.RecodeXML(raw, charset, "")
	if err != nil || s.Format == sdk.FormatXML {
		return text, err
	}
	x := codec.XML{Arrays: s.Elements.Arrays}
	return x.XMLToJSON(text, "utf-8")
}
