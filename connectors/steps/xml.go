package steps

import "github.com/metip/metip/connectors/codec"

// CheckXML tells whether a text is a well-formed document, as the data plane takes it: without document type, and of bounded depth.
func CheckXML(text string) error { return codec.CheckXML([]byte(text)) }

// CheckElements tells whether these are names of elements, which may have a prefix.
func CheckElements(names []string) error {
	x := codec.XML{Order: names}
	return x.Check()
}
