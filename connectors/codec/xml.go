package codec

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

// XML says how XML and JSON become each other.
type XML struct {
	// Root is the name of the outermost element, which JSON then does not have: its value is the whole document. Empty: JSON has one member,
	// which is it.
	Root string
	// Item is the name of the elements within Root that are the document, an array; only with Root.
	Item string
	// Arrays are names of elements that become arrays of JSON even where there is only one.
	Arrays []string
	// Order of elements by their names, where XML is made: those named here come first, in this order; others follow in JSON's.
	Order []string
}

// Names in JSON of what has no name in XML, and what begins the name of an attribute.
const (
	nameText   = "#text"
	nameMixed  = "#mixed"
	attributes = '@'
)

// maxNames of different children of one element.
const maxNames = 10_000

// xmlNode is an element, a text, or an attribute with its value in a text; where it lies in the body. Node 0 is none.
type xmlNode struct {
	start, end  uint32
	first, next ref
	kind        xmlNodeKind
}

type xmlNodeKind uint8

const (
	nodeElement xmlNodeKind = iota + 1
	nodeAttribute
	// nodeText is as it stands; nodeCooked has references, nodeCData line ends, and nodeValue, an attribute's, spaces to replace.
	nodeText
	nodeCooked
	nodeCData
	nodeValue
)

// xmlDocument is XML whose parts lie in the body.
type xmlDocument struct {
	in    []byte
	nodes []xmlNode
}

// parseXML makes a document of a body.
func parseXML(body []byte) (*xmlDocument, error) {
	if len(body) > 1<<30 {
		return nil, errors.New("the body is too long")
	}
	s := xmlScanner{in: body}
	if err := s.begin(); err != nil {
		return nil, err
	}
	d := &xmlDocument{in: s.in, nodes: make([]xmlNode, 1, 16+len(body)/16)}
	// open elements, and the last child of each.
	var open, last []ref
	add := func(k xmlNodeKind, at span) ref {
		n := ref(len(d.nodes))
		d.nodes = append(d.nodes, xmlNode{start: uint32(at.start), end: uint32(at.end), kind: k})
		if top := len(open) - 1; top >= 0 {
			if last[top] == 0 {
				d.nodes[open[top]].first = n
			} else {
				d.nodes[last[top]].next = n
			}
			last[top] = n
		}
		return n
	}
	for {
		t, err := s.next()
		if err != nil {
			return nil, err
		}
		switch t.kind {
		case xmlEnd:
			return d, nil
		case xmlOpen:
			open, last = append(open, add(nodeElement, t.span)), append(last, 0)
			for _, a := range s.attributes {
				n := add(nodeAttribute, a.name)
				d.nodes = append(d.nodes, xmlNode{start: uint32(a.value.start), end: uint32(a.value.end), kind: nodeValue})
				d.nodes[n].first = n + 1
			}
		case xmlClose:
			open, last = open[:len(open)-1], last[:len(last)-1]
		case xmlText:
			add(kindOf(s.in[t.start:t.end], "&\r", nodeCooked), t.span)
		case xmlCData:
			add(kindOf(s.in[t.start:t.end], "\r", nodeCData), t.span)
		}
	}
}

// kindOf a text: special, where it has one of the characters.
func kindOf(raw []byte, characters string, special xmlNodeKind) xmlNodeKind {
	if bytes.ContainsAny(raw, characters) {
		return special
	}
	return nodeText
}

func (d *xmlDocument) raw(n ref) []byte { return d.in[d.nodes[n].start:d.nodes[n].end] }

// text of a node, as XML means it. It may be part of the body.
func (d *xmlDocument) text(n ref) []byte {
	raw := d.raw(n)
	switch d.nodes[n].kind {
	case nodeCooked:
		return cooked(raw, false)
	case nodeValue:
		if bytes.ContainsAny(raw, "&\r\n\t") {
			return cooked(raw, true)
		}
	case nodeCData:
		return bytes.ReplaceAll(bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
	}
	return raw
}

// cooked text has its references replaced, and its line ends; in an attribute every white space is a blank.
func cooked(raw []byte, attribute bool) []byte {
	var out bytes.Buffer
	out.Grow(len(raw))
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '&':
			r, size := reference(raw[i+1:])
			out.WriteRune(r)
			i += size
		case c == '\r' && i+1 < len(raw) && raw[i+1] == '\n':
		case attribute && isXMLSpace(c):
			out.WriteByte(' ')
		case c == '\r':
			out.WriteByte('\n')
		default:
			out.WriteByte(c)
		}
	}
	return out.Bytes()
}

// XMLToJSON makes JSON of XML. charset is the body's, where it is not for the body itself to say.
func (x *XML) XMLToJSON(body []byte, charset string) ([]byte, error) {
	body, err := decodeXML(body, charset)
	if err != nil {
		return nil, err
	}
	d, err := parseXML(body)
	if err != nil {
		return nil, err
	}
	w := jsonWriter{xmlDocument: d, XML: x, out: make([]byte, 0, len(body))}
	err = w.document()
	if err == nil && len(w.out) > maxOutput {
		err = errTooLong
	}
	return w.out, err
}

// jsonWriter writes a document as JSON.
type jsonWriter struct {
	*xmlDocument
	*XML
	out []byte
}

func (w *jsonWriter) document() error {
	name := w.raw(root)
	if w.Root == "" {
		w.out = append(w.out, '{')
		w.member("", name)
		if err := w.element(root); err != nil {
			return err
		}
		w.out = append(w.out, '}')
		return nil
	}
	if string(name) != w.Root {
		return fmt.Errorf("the outermost element is %.64q, not %q", name, w.Root)
	}
	if w.Item == "" {
		return w.element(root)
	}
	w.out = append(w.out, '[')
	for c := w.nodes[root].first; c != 0; c = w.nodes[c].next {
		switch {
		case w.nodes[c].kind == nodeAttribute && bytes.HasPrefix(w.raw(c), []byte("xmlns")):
			continue // of the list itself
		case w.nodes[c].kind >= nodeText && w.isBlank(c):
			continue
		case w.nodes[c].kind != nodeElement || string(w.raw(c)) != w.Item:
			return fmt.Errorf("the element %q holds something else than elements %q", w.Root, w.Item)
		}
		w.comma()
		if err := w.element(c); err != nil {
			return err
		}
	}
	w.out = append(w.out, ']')
	return nil
}

// comma before whatever is not the first.
func (w *jsonWriter) comma() {
	if last := w.out[len(w.out)-1]; last != '{' && last != '[' {
		w.out = append(w.out, ',')
	}
}

// member's name, which needs no escape.
func (w *jsonWriter) member(prefix string, name []byte) {
	w.comma()
	w.out = append(append(append(append(w.out, '"'), prefix...), name...), '"', ':')
}

// element as a string, where it has neither attributes nor elements; else as an object.
func (w *jsonWriter) element(n ref) error {
	if len(w.out) > maxOutput {
		return errTooLong
	}
	named, elements, texts, mixed := false, false, 0, false
	for c := w.nodes[n].first; c != 0; c = w.nodes[c].next {
		switch w.nodes[c].kind {
		case nodeAttribute:
			named = true
		case nodeElement:
			elements = true
		default:
			texts++
			mixed = mixed || !w.isBlank(c)
		}
	}
	if !named && !elements {
		w.out = appendString(w.out, w.texts(n, texts))
		return nil
	}
	w.out = append(w.out, '{')
	for c := w.nodes[n].first; c != 0 && w.nodes[c].kind == nodeAttribute; c = w.nodes[c].next {
		w.member("@", w.raw(c))
		w.out = appendString(w.out, w.text(w.nodes[c].first))
	}
	var err error
	switch {
	case !elements && texts > 0:
		w.member(nameText, nil)
		w.out = appendString(w.out, w.texts(n, texts))
	case elements && mixed:
		err = w.mixed(n)
	case elements:
		err = w.children(n)
	}
	w.out = append(w.out, '}')
	return err
}

// texts of an element, joined.
func (w *jsonWriter) texts(n ref, count int) []byte {
	var all []byte
	for c := w.nodes[n].first; c != 0; c = w.nodes[c].next {
		if k := w.nodes[c].kind; k >= nodeText {
			if count == 1 {
				return w.text(c)
			}
			all = append(all, w.text(c)...)
		}
	}
	return all
}

// isBlank tells a text that is white space between elements.
func (w *jsonWriter) isBlank(n ref) bool {
	if w.nodes[n].kind == nodeCooked {
		return len(bytes.Trim(w.text(n), " \t\r\n")) == 0
	}
	for _, c := range w.raw(n) {
		if !isXMLSpace(c) {
			return false
		}
	}
	return true
}

// mixed content: texts and elements, in their order.
func (w *jsonWriter) mixed(n ref) error {
	w.member(nameMixed, nil)
	w.out = append(w.out, '[')
	for c := w.nodes[n].first; c != 0; c = w.nodes[c].next {
		switch w.nodes[c].kind {
		case nodeAttribute:
		case nodeElement:
			w.comma()
			w.out = append(w.out, '{')
			w.member("", w.raw(c))
			if err := w.element(c); err != nil {
				return err
			}
			w.out = append(w.out, '}')
		default:
			w.comma()
			w.out = appendString(w.out, w.text(c))
		}
	}
	w.out = append(w.out, ']')
	return nil
}

// group of children with one name.
type group struct {
	name  []byte
	first ref
	// more are those after the first.
	more []ref
}

// children of an element, those with one name together.
func (w *jsonWriter) children(n ref) error {
	groups, err := w.groups(n)
	if err != nil {
		return err
	}
	for i := range groups {
		g := &groups[i]
		w.member("", g.name)
		list := len(g.more) > 0 || len(w.Arrays) > 0 && slices.Contains(w.Arrays, string(g.name))
		if list {
			w.out = append(w.out, '[')
		}
		if err := w.element(g.first); err != nil {
			return err
		}
		for _, c := range g.more {
			w.out = append(w.out, ',')
			if err := w.element(c); err != nil {
				return err
			}
		}
		if list {
			w.out = append(w.out, ']')
		}
	}
	return nil
}

// groups in the order in which their names come first.
func (w *jsonWriter) groups(n ref) ([]group, error) {
	var groups []group
	var byName map[string]int
	for c := w.nodes[n].first; c != 0; c = w.nodes[c].next {
		if w.nodes[c].kind != nodeElement {
			continue
		}
		name, at := w.raw(c), -1
		if byName != nil {
			if i, ok := byName[string(name)]; ok {
				at = i
			}
		} else {
			at = slices.IndexFunc(groups, func(g group) bool { return bytes.Equal(g.name, name) })
		}
		if at >= 0 {
			groups[at].more = append(groups[at].more, c)
			continue
		}
		if at = len(groups); at == maxNames {
			return nil, fmt.Errorf("an element has more than %d children with different names", maxNames)
		}
		groups = append(groups, group{name: name, first: c})
		if len(groups) == 16 {
			byName = make(map[string]int, 64)
			for i := range groups {
				byName[string(groups[i].name)] = i
			}
		} else if byName != nil {
			byName[string(name)] = at
		}
	}
	return groups, nil
}

// JSONToXML makes XML of JSON. charset is what the result is to be in, and is declared; empty means UTF-8, which needs no declaration.
func (x *XML) JSONToXML(body []byte, charset string) ([]byte, error) {
	d, err := parseJSON(body)
	if err != nil {
		return nil, err
	}
	w := xmlWriter{document: d, XML: x, out: make([]byte, 0, len(body)+len(body)/4)}
	if charset != "" {
		w.out = fmt.Appendf(w.out, `<?xml version="1.0" encoding="%s"?>`, charset)
	}
	if err := w.root(); err != nil {
		return nil, err
	}
	if len(w.out) > maxOutput {
		return nil, errTooLong
	}
	return encodeCharset(w.out, charset, referToCharacter)
}

// referToCharacter is how XML says a character that a character set does not have.
func referToCharacter(r rune) (string, bool) { return fmt.Sprintf("&#%d;", r), true }

// xmlWriter writes a document as XML.
type xmlWriter struct {
	*document
	*XML
	out []byte
}

func (w *xmlWriter) root() error {
	if w.Root == "" {
		n := w.nodes[root].first
		if w.nodes[root].kind != isObject || n == 0 || w.nodes[n].next != 0 || w.nodes[n].kind == isArray {
			return errors.New("XML has one outermost element: the body must be an object with one member, or name the element by root")
		}
		return w.element(w.document.name(n), n)
	}
	if w.nodes[root].kind != isArray {
		if w.Item != "" {
			return fmt.Errorf("the body must be an array: each item becomes an element %q", w.Item)
		}
		return w.element([]byte(w.Root), root)
	}
	if w.Item == "" {
		return errors.New("the body is an array: name the elements of its items by item")
	}
	w.out = append(append(append(w.out, '<'), w.Root...), '>')
	for c := w.nodes[root].first; c != 0; c = w.nodes[c].next {
		if err := w.element([]byte(w.Item), c); err != nil {
			return err
		}
	}
	w.out = append(append(append(w.out, "</"...), w.Root...), '>')
	return nil
}

// element of a value that is no array.
func (w *xmlWriter) element(name []byte, n ref) error {
	if len(w.out) > maxOutput {
		return errTooLong
	}
	if !isXMLName(name) {
		return fmt.Errorf("%.64q is no name of an element", name)
	}
	v := &w.nodes[n]
	if v.kind == isArray {
		return fmt.Errorf("the array within %.64q has no name of its own: items of arrays that are arrays are no XML", name)
	}
	w.out = append(append(w.out, '<'), name...)
	if v.kind == isObject {
		if err := w.attributes(n); err != nil {
			return err
		}
	}
	opened := len(w.out)
	w.out = append(w.out, '>')
	var err error
	if v.kind == isObject {
		err = w.content(n)
	} else {
		err = w.write(w.text(n), false)
	}
	if err != nil {
		return err
	}
	if len(w.out) == opened+1 {
		w.out = append(w.out[:opened], "/>"...)
		return nil
	}
	w.out = append(append(append(w.out, "</"...), name...), '>')
	return nil
}

// attributes are the members whose names begin with @.
func (w *xmlWriter) attributes(n ref) error {
	given := 0
	for c := w.nodes[n].first; c != 0; c = w.nodes[c].next {
		name := w.document.name(c)
		if len(name) == 0 || name[0] != attributes || w.nodes[c].kind == isNull {
			continue
		}
		if name = name[1:]; !isXMLName(name) {
			return fmt.Errorf("%.64q is no name of an attribute", name)
		}
		if !w.isScalar(c) {
			return fmt.Errorf("the attribute %.64q is an object or array", name)
		}
		if given++; given > maxAttributes {
			return fmt.Errorf("an element has more than %d attributes", maxAttributes)
		}
		w.out = append(append(append(w.out, ' '), name...), `="`...)
		if err := w.write(w.text(c), true); err != nil {
			return err
		}
		w.out = append(w.out, '"')
	}
	return nil
}

// content of an element: a text, mixed content, or elements.
func (w *xmlWriter) content(n ref) error {
	var buffer [16]ref
	children, special := buffer[:0], ref(0)
	for c := w.nodes[n].first; c != 0; c = w.nodes[c].next {
		name := w.document.name(c)
		switch {
		case len(name) > 0 && name[0] == attributes:
		case string(name) == nameText || string(name) == nameMixed:
			if special != 0 {
				return fmt.Errorf("%s and %s, or one of them twice: an element has one content", nameText, nameMixed)
			}
			special = c
		default:
			children = append(children, c)
		}
	}
	switch {
	case special == 0:
		return w.children(children)
	case len(children) > 0:
		return fmt.Errorf("%s beside elements: write all of them, in their order, into %s", w.document.name(special), nameMixed)
	case string(w.document.name(special)) == nameMixed:
		return w.mixed(special)
	case !w.isScalar(special):
		return fmt.Errorf("%s is an object or array", nameText)
	}
	return w.write(w.text(special), false)
}

func (w *xmlWriter) children(list []ref) error {
	if len(w.Order) > 0 {
		rank := func(c ref) int {
			if i := slices.Index(w.Order, string(w.document.name(c))); i >= 0 {
				return i
			}
			return len(w.Order)
		}
		slices.SortStableFunc(list, func(a, b ref) int { return rank(a) - rank(b) })
	}
	for _, c := range list {
		name := w.document.name(c)
		if w.nodes[c].kind != isArray {
			if err := w.element(name, c); err != nil {
				return err
			}
			continue
		}
		for i := w.nodes[c].first; i != 0; i = w.nodes[i].next {
			if err := w.element(name, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// mixed content: an array of texts, and of objects with one member, which is an element.
func (w *xmlWriter) mixed(n ref) error {
	if w.nodes[n].kind != isArray {
		return fmt.Errorf("%s is no array", nameMixed)
	}
	for i := w.nodes[n].first; i != 0; i = w.nodes[i].next {
		if w.nodes[i].kind == isString {
			if err := w.write(w.text(i), false); err != nil {
				return err
			}
			continue
		}
		c := w.nodes[i].first
		if w.nodes[i].kind != isObject || c == 0 || w.nodes[c].next != 0 {
			return fmt.Errorf("%s holds texts, and objects with one member", nameMixed)
		}
		if err := w.element(w.document.name(c), c); err != nil {
			return err
		}
	}
	return nil
}

// write a text, such that reading it gives the same.
func (w *xmlWriter) write(text []byte, attribute bool) error {
	from := 0
	for i, r := range string(text) {
		with := ""
		switch {
		case r == '<':
			with = "&lt;"
		case r == '>':
			with = "&gt;"
		case r == '&':
			with = "&amp;"
		case r == '\r':
			with = "&#13;"
		case attribute && r == '"':
			with = "&quot;"
		case attribute && r == '\n':
			with = "&#10;"
		case attribute && r == '\t':
			with = "&#9;"
		case !isXMLChar(r):
			return fmt.Errorf("the character %U is none that XML has", r)
		default:
			continue
		}
		w.out = append(append(w.out, text[from:i]...), with...)
		from = i + utf8.RuneLen(r)
	}
	w.out = append(w.out, text[from:]...)
	return nil
}

// Check the names.
func (x *XML) Check() error {
	if x.Item != "" && x.Root == "" {
		return errors.New("item needs root: the element that holds the items")
	}
	for _, name := range slices.Concat([]string{x.Root, x.Item}, x.Arrays, x.Order) {
		if name != "" && !isXMLName(name) {
			return fmt.Errorf("%.64q is no name of an element", name)
		}
	}
	return nil
}

// RecodeXML turns XML from one character set into another, and leaves all else as it is. from may be empty for the body to say.
func RecodeXML(body []byte, from, to string) ([]byte, error) {
	text, err := decodeXML(body, from)
	if err != nil {
		return nil, err
	}
	if err := checkXML(text); err != nil {
		return nil, err
	}
	if bytes.HasPrefix(text, []byte("<?xml")) && isXMLSpace(text[5]) {
		text = text[bytes.Index(text, []byte("?>"))+2:]
	}
	if to == "" {
		return text, nil
	}
	return Encode(append(fmt.Appendf(nil, `<?xml version="1.0" encoding="%s"?>`, to), text...), to)
}
