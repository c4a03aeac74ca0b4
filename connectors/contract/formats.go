package contract

// Schema of bodies, with its text: references are resolved.
type Schema struct {
	Text string `json:"text"`
	// From says where the text comes from, for errors: "configMap schemas key arrest.json"; empty for the manifest itself.
	From string `json:"from,omitempty"`
}

// Validate tells bodies that follow a schema from those that do not: exactly one member.
type Validate struct {
	JSONSchema *Schema `json:"jsonSchema,omitempty"`
	// WellFormedXML asks for no more than that the body is XML.
	WellFormedXML bool `json:"wellFormedXML,omitempty"`
}

// Formats that convert knows, beyond those of messages (sdk.Format...): bodies of these are Text and Binary to everybody else.
const (
	ConvertCSV  = "CSV"
	ConvertAvro = "Avro"
)

// Convert turns a body from one format into another.
type Convert struct {
	// From and To are JSON, XML, Text, CSV or Avro.
	From string `json:"from"`
	To   string `json:"to"`
	// FromCharset and ToCharset of what is text; empty means UTF-8, and for XML what it says itself.
	FromCharset string       `json:"fromCharset,omitempty"`
	ToCharset   string       `json:"toCharset,omitempty"`
	XML         *ConvertXML  `json:"xml,omitempty"`
	CSV         *CSVOptions  `json:"csv,omitempty"`
	Avro        *AvroOptions `json:"avro,omitempty"`
}

// ConvertXML says how XML and JSON become each other.
type ConvertXML struct {
	// Root is the outermost element, which JSON then does not have; Item are the elements in it that an array becomes.
	Root string `json:"root,omitempty"`
	Item string `json:"item,omitempty"`
	// Arrays are elements that are arrays in JSON even where there is only one.
	Arrays []string `json:"arrays,omitempty"`
	// Order of elements where XML is made.
	Order []string `json:"order,omitempty"`
}

// CSVOptions say how tables are written.
type CSVOptions struct {
	// Delimiter is one character; empty means a comma.
	Delimiter string `json:"delimiter,omitempty"`
	// NoHeader: the first row is no header.
	NoHeader bool `json:"noHeader,omitempty"`
	// Columns by name.
	Columns []string `json:"columns,omitempty"`
	// QuoteAll fields; LF ends rows without a carriage return.
	QuoteAll bool `json:"quoteAll,omitempty"`
	LF       bool `json:"lf,omitempty"`
}

// AvroOptions say how Avro is encoded.
type AvroOptions struct {
	Schema Schema `json:"schema"`
	// SingleObject: the body begins with the schema's fingerprint.
	SingleObject bool `json:"singleObject,omitempty"`
}

// Split makes a delivery of each element of an array.
type Split struct {
	// Items is a CEL expression that yields the array.
	Items string `json:"items"`
}

// MaxParts of one message.
const MaxParts = 10_000

// CloudEvents extensions of a part: the id of the message that was split, and which part of how many this is, counted from 0.
const (
	ExtensionSplitID    = "splitid"
	ExtensionSplitIndex = "splitindex"
	ExtensionSplitCount = "splitcount"
)

// HeaderDeadPart of a dead letter is the first part that failed, counted from 0; missing where the message was not split.
const HeaderDeadPart = HeaderDeadPrefix + "part"
