package v1alpha1

// SchemaSource is exactly one place that holds a schema.
// +kubebuilder:validation:XValidation:rule="has(self.inline) != has(self.configMap)",message="set exactly one of inline and configMap, for example `{configMap: {name: schemas, key: arrest.json}}`"
type SchemaSource struct {
	// inline is the schema's text, at most 65536 characters, for example `{"type": "object", "required": ["arrestId"]}`.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	Inline string `json:"inline,omitempty"`
	// configMap key that holds the schema's text, at most 256 KiB. When the text changes, the pods that use it roll. While the ConfigMap is
	// missing, or holds no schema, what ran before goes on running.
	// +optional
	ConfigMap *ConfigMapKey `json:"configMap,omitempty"`
}

// Validate tells bodies that are right from those that are not: exactly one way.
// +kubebuilder:validation:XValidation:rule="has(self.jsonSchema) != has(self.xml)",message="set exactly one of jsonSchema and xml, for example `validate: {jsonSchema: {configMap: {name: schemas, key: arrest.json}}}`"
type Validate struct {
	// jsonSchema that the body must follow: of draft 2020-12, or of an older one that its $schema names. `format` is checked, regular
	// expressions are RE2, and references lead to places of the schema itself only.
	// +optional
	JSONSchema *SchemaSource `json:"jsonSchema,omitempty"`
	// xml asks for a body that is well-formed XML without a document type declaration, at most 256 elements deep. It has no fields: there is no
	// check against an XML Schema.
	// +optional
	XML *WellFormedXML `json:"xml,omitempty"`
}

// WellFormedXML has no fields.
type WellFormedXML struct{}

// BodyFormat that a conversion reads or writes.
// +kubebuilder:validation:Enum=JSON;XML;CSV;Avro;Text
type BodyFormat string

// Charset is a character set, by its name of IANA.
// +kubebuilder:validation:Enum=UTF-8;US-ASCII;UTF-16;UTF-16LE;UTF-16BE;ISO-8859-1;ISO-8859-2;ISO-8859-5;ISO-8859-7;ISO-8859-9;ISO-8859-15;windows-1250;windows-1251;windows-1252;windows-1253;windows-1254;IBM437;IBM850;KOI8-R;macintosh
type Charset string

// Convert turns the body into another format. docs/formats.md says what becomes of what.
// +kubebuilder:validation:XValidation:rule="self.from != self.to || (has(self.charset) && self.from in ['Text', 'CSV', 'XML'])",message="from and to are the same: name another format, or the charset to convert from or to"
// +kubebuilder:validation:XValidation:rule="!has(self.xml) || self.from == 'XML' || self.to == 'XML'",message="xml is for conversions from or to XML"
// +kubebuilder:validation:XValidation:rule="!has(self.csv) || self.from == 'CSV' || self.to == 'CSV'",message="csv is for conversions from or to CSV"
// +kubebuilder:validation:XValidation:rule="has(self.avro) == (self.from == 'Avro' || self.to == 'Avro')",message="avro goes with conversions from or to Avro, which need its schema: `avro: {schema: {configMap: {name: schemas, key: arrest.avsc}}}`"
// +kubebuilder:validation:XValidation:rule="!has(self.charset) || ((!has(self.charset.from) || self.from in ['Text', 'CSV', 'XML']) && (!has(self.charset.to) || self.to in ['Text', 'CSV', 'XML']))",message="only Text, CSV and XML have a charset: JSON is UTF-8, and Avro is no text"
type Convert struct {
	// from is the format that the body is in: JSON, XML, CSV, Avro or Text. The format that the message is said to have does not matter, so that a
	// source of format Binary may take in CSV or Avro.
	// +required
	From BodyFormat `json:"from"`
	// to is the format that the body is to be in: JSON, XML, CSV, Avro or Text. From Text, JSON is a string; to Text, it must be one.
	// +required
	To BodyFormat `json:"to"`
	// charset of what is no UTF-8.
	// +optional
	Charset *ConvertCharset `json:"charset,omitempty"`
	// xml says how XML and JSON become each other. Left out, the JSON has one member, which is the outermost element.
	// +optional
	XML *XMLFormat `json:"xml,omitempty"`
	// csv says how tables are written. Left out, they have a header, commas, and quotes where they must be.
	// +optional
	CSV *CSVFormat `json:"csv,omitempty"`
	// avro says by which schema Avro is encoded.
	// +optional
	Avro *AvroFormat `json:"avro,omitempty"`
}

// ConvertCharset names character sets.
// +kubebuilder:validation:MinProperties=1
type ConvertCharset struct {
	// from is the character set that the body is in. Left out, it is UTF-8 or, for XML, what the body says itself.
	// +optional
	From Charset `json:"from,omitempty"`
	// to is the character set that the body is to be in. Left out, it is UTF-8. A character that it does not have is an error; JSON to
	// XML writes a reference instead. A body that is no UTF-8 is Binary to the steps that follow.
	// +optional
	To Charset `json:"to,omitempty"`
}

// ElementName is the name of an XML element, with its prefix if it has one.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=128
// +kubebuilder:validation:Pattern=`^[^<>&"'/=\s]+$`
type ElementName string

// XMLFormat says how XML and JSON become each other.
// +kubebuilder:validation:XValidation:rule="!has(self.item) || has(self.root)",message="item needs root, for example `xml: {root: rows, item: row}`"
type XMLFormat struct {
	// root is the name of the outermost element, which JSON then does not have: its content is the whole document.
	// +optional
	Root ElementName `json:"root,omitempty"`
	// item is the name of the elements within root that are the document, an array.
	// +optional
	Item ElementName `json:"item,omitempty"`
	// arrays names elements that become arrays of JSON even where there is only one.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	Arrays []ElementName `json:"arrays,omitempty"`
	// order of elements by their names, at every level, where XML is made: those named here come first, in this order; others follow in that of
	// the JSON.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Order []ElementName `json:"order,omitempty"`
}

// CSVHeader says whether a table has a header.
// +kubebuilder:validation:Enum=Present;Absent
type CSVHeader string

// CSVQuotes says which fields are in quotes.
// +kubebuilder:validation:Enum=Necessary;All
type CSVQuotes string

// CSVLineEnd ends a row.
// +kubebuilder:validation:Enum=CRLF;LF
type CSVLineEnd string

// The values of CSVFormat that are not the defaults.
const (
	CSVHeaderAbsent CSVHeader  = "Absent"
	CSVQuotesAll    CSVQuotes  = "All"
	CSVLineEndLF    CSVLineEnd = "LF"
)

// CSVFormat says how tables are written.
type CSVFormat struct {
	// delimiter between fields, one character, by default a comma; a tab is "\t".
	// +optional
	// +default=","
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1
	// +kubebuilder:validation:XValidation:rule="!(self in ['\"', '\\r', '\\n'])",message="delimiter cannot be a quote or a line end"
	Delimiter string `json:"delimiter,omitempty"`
	// header is Present (the default) or Absent: whether the first row names the columns.
	// +optional
	// +default="Present"
	Header CSVHeader `json:"header,omitempty"`
	// columns by their names, in order: those of a table without header, and those that are written. Left out, rows without header are
	// arrays, and what is written are the members of the first object.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	Columns []string `json:"columns,omitempty"`
	// quotes is Necessary (the default) or All: which fields are written in quotes.
	// +optional
	// +default="Necessary"
	Quotes CSVQuotes `json:"quotes,omitempty"`
	// lineEnd is CRLF (the default, as RFC 4180 has it) or LF: how rows that are written end. Both are read.
	// +optional
	// +default="CRLF"
	LineEnd CSVLineEnd `json:"lineEnd,omitempty"`
}

// AvroEncoding of a body.
// +kubebuilder:validation:Enum=Binary;SingleObject
type AvroEncoding string

// AvroEncodingSingleObject begins with the fingerprint of the schema.
const AvroEncodingSingleObject AvroEncoding = "SingleObject"

// AvroFormat says how Avro is encoded.
type AvroFormat struct {
	// schema of the bodies, as Avro writes it (JSON).
	// +required
	Schema SchemaSource `json:"schema"`
	// encoding is Binary (the default): the bare value; or SingleObject: the schema's fingerprint and the value.
	// +optional
	// +default="Binary"
	Encoding AvroEncoding `json:"encoding,omitempty"`
}

// Split makes a delivery of each element of an array.
type Split struct {
	// items is a CEL expression that yields the array, for example data.offences. Each element is the (JSON) body of a part; the parts are
	// delivered in order. At most 10000; an empty array filters the message out.
	// +required
	Items Expression `json:"items"`
}
