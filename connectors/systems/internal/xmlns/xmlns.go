// Package xmlns takes elements out of documents, with the declarations of namespaces that they need to stand by themselves.
package xmlns

import (
	"bytes"
	"encoding/xml"
)

// Declaration of a namespace; the prefix of the default one is empty.
type Declaration struct{ Prefix, URI string }

// Within an element: the declarations around it, and its own, which take the place of those of the same prefix.
func Within(around []Declaration, start *xml.StartElement) []Declaration {
	all := append([]Declaration(nil), around...)
	for _, a := range start.Attr {
		var d Declaration
		switch {
		case a.Name.Space == "xmlns":
			d = Declaration{a.Name.Local, a.Value}
		case a.Name.Space == "" && a.Name.Local == "xmlns":
			d = Declaration{"", a.Value}
		default:
			continue
		}
		replaced := false
		for i := range all {
			if all[i].Prefix == d.Prefix {
				all[i], replaced = d, true
			}
		}
		if !replaced {
			all = append(all, d)
		}
	}
	return all
}

// Detach an element, raw as it stands in its document: the declarations around it that it needs are added to its own.
func Detach(raw []byte, start *xml.StartElement, around []Declaration) []byte {
	own := Within(nil, start)
	name := 1 + bytes.IndexAny(raw[1:], " \t\r\n/>")
	out := append(make([]byte, 0, len(raw)+128), raw[:name]...)
next:
	for _, d := range around {
		for _, o := range own {
			if o.Prefix == d.Prefix {
				continue next
			}
		}
		switch {
		case d.URI == "":
		case d.Prefix == "":
			out = AppendAttribute(out, "xmlns", d.URI)
		case bytes.Contains(raw, []byte(d.Prefix+":")): // in a name, or in a value such as that of xsi:type
			out = AppendAttribute(out, "xmlns:"+d.Prefix, d.URI)
		}
	}
	return append(out, raw[name:]...)
}

// AppendAttribute writes a blank, a name and a value.
func AppendAttribute(out []byte, name, value string) []byte {
	out = append(append(append(out, ' '), name...), `="`...)
	return append(AppendText(out, value), '"')
}

// AppendText writes a text so that it means itself, in an element or an attribute.
func AppendText(out []byte, text string) []byte {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(text)) // a buffer takes everything
	return append(out, b.Bytes()...)
}
