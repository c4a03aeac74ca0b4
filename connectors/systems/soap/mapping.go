package soap

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/metip/metip/connectors/codec"
	"github.com/metip/metip/connectors/systems/internal/xmlns"
)

const (
	nsInstance     = "http://www.w3.org/2001/XMLSchema-instance"
	prefixInstance = "xsi"
	// nsXML is the one namespace whose prefix, xml, is never declared.
	nsXML = "http://www.w3.org/XML/1998/namespace"
)

// mappingOptions say how the element in a Body and JSON become each other: names in JSON are those of the elements, with the prefixes that are
// declared here, whatever prefixes the sender uses.
type mappingOptions struct {
	// Namespace of names without prefix.
	Namespace string `json:"namespace"`
	// Prefixes of other namespaces.
	Prefixes map[string]string `json:"prefixes"`
	// Arrays are elements that are arrays in JSON even where there is one.
	Arrays []string `json:"arrays"`
	// Order of elements in XML; others follow in JSON's.
	Order []string `json:"order"`
}

type mapping struct {
	codec.XML
	namespace string
	// names are the prefixes in order, and uris what they stand for.
	names []string
	uris  map[string]string
	// prefixes by namespace.
	prefixes map[string]string
}

func newMapping(o mappingOptions) (*mapping, error) {
	m := &mapping{XML: codec.XML{Arrays: o.Arrays, Order: o.Order}, namespace: o.Namespace, uris: map[string]string{prefixInstance: nsInstance}, prefixes: map[string]string{}}
	for prefix, uri := range o.Prefixes {
		if prefix == "" || uri == "" || bytes.ContainsAny([]byte(prefix), ": ") {
			return nil, fmt.Errorf("prefixes: %q: a prefix is a name, and stands for a namespace", prefix)
		}
		m.uris[prefix] = uri
	}
	for prefix, uri := range m.uris {
		if other, ok := m.prefixes[uri]; ok {
			return nil, fmt.Errorf("prefixes: %s and %s stand for one namespace", min(prefix, other), max(prefix, other))
		}
		m.prefixes[uri] = prefix
		m.names = append(m.names, prefix)
	}
	slices.Sort(m.names)
	return m, m.Check()
}

// toJSON makes JSON of a payload: an object with one member, the element.
func (m *mapping) toJSON(payload []byte) ([]byte, error) {
	plain, err := m.rename(payload)
	if err != nil {
		return nil, err
	}
	return m.XMLToJSON(plain, "utf-8")
}

// rename elements and attributes to what they are called in JSON, and take the declarations off.
func (m *mapping) rename(payload []byte) ([]byte, error) {
	d := xml.NewDecoder(bytes.NewReader(payload))
	out := bytes.NewBuffer(make([]byte, 0, len(payload)))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return out.Bytes(), nil
		}
		if err != nil {
			return nil, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			out.WriteByte('<')
			out.WriteString(m.name(t.Name))
			for _, a := range t.Attr {
				if a.Name.Space == "xmlns" || a.Name.Space == "" && a.Name.Local == "xmlns" {
					continue
				}
				out.WriteByte(' ')
				if a.Name.Space == m.namespace {
					a.Name.Space = ""
				}
				out.WriteString(m.name(a.Name))
				out.WriteString(`="`)
				_ = xml.EscapeText(out, []byte(a.Value)) // a buffer takes everything
				out.WriteByte('"')
			}
			out.WriteByte('>')
		case xml.EndElement:
			out.WriteString("</")
			out.WriteString(m.name(t.Name))
			out.WriteByte('>')
		case xml.CharData:
			_ = xml.EscapeText(out, t)
		}
	}
}

func (m *mapping) name(n xml.Name) string {
	if n.Space == "" || n.Space == m.namespace {
		return n.Local
	}
	if n.Space == nsXML {
		return "xml:" + n.Local
	}
	if prefix, ok := m.prefixes[n.Space]; ok {
		return prefix + ":" + n.Local
	}
	return n.Local
}

// toXML makes a payload of JSON, with the declarations that it needs.
func (m *mapping) toXML(body []byte) ([]byte, error) {
	text, err := m.JSONToXML(body, "")
	if err != nil {
		return nil, err
	}
	end := bytes.IndexByte(text, '>')
	name := 1 + bytes.IndexAny(text[1:], " />")
	tag := text[:end]
	out := append(make([]byte, 0, len(text)+256), text[:name]...)
	if m.namespace != "" && !bytes.Contains(tag, []byte(" xmlns=")) {
		out = xmlns.AppendAttribute(out, "xmlns", m.namespace)
	}
	for _, prefix := range m.names {
		if bytes.Contains(text, []byte(prefix+":")) && !bytes.Contains(tag, []byte(" xmlns:"+prefix+"=")) {
			out = xmlns.AppendAttribute(out, "xmlns:"+prefix, m.uris[prefix])
		}
	}
	return append(out, text[name:]...), nil
}
