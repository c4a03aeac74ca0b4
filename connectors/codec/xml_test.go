package codec

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/metip/metip/connectors/sdk"
)

func TestXMLAndJSON(t *testing.T) {
	for name, c := range map[string]struct {
		options XML
		xml     string
		json    string
		// back is what JSON becomes, where that is not xml again.
		back string
	}{
		"text":             {XML{}, `<a>x</a>`, `{"a":"x"}`, ""},
		"empty":            {XML{}, `<a/>`, `{"a":""}`, ""},
		"empty, long form": {XML{}, `<a></a>`, `{"a":""}`, `<a/>`},
		"attributes":       {XML{}, `<a z="1" b="&lt;&quot;&#10;">x</a>`, `{"a":{"@z":"1","@b":"<\"\n","#text":"x"}}`, ""},
		"attribute alone":  {XML{}, `<a b=""/>`, `{"a":{"@b":""}}`, ""},
		"children":         {XML{}, `<a><c>1</c><b>2</b></a>`, `{"a":{"c":"1","b":"2"}}`, ""},
		"repeated":         {XML{}, `<a><b>1</b><b>2</b></a>`, `{"a":{"b":["1","2"]}}`, ""},
		"interleaved":      {XML{}, `<a><b>1</b><c/><b>2</b></a>`, `{"a":{"b":["1","2"],"c":""}}`, `<a><b>1</b><b>2</b><c/></a>`},
		"white space":      {XML{}, "<a>\r\n  <b> x </b>\n</a>\n", `{"a":{"b":" x "}}`, `<a><b> x </b></a>`},
		"blank text":       {XML{}, `<a> </a>`, `{"a":" "}`, ""},
		"line ends":        {XML{}, "<a>1\r\n2\r3\n4</a>", `{"a":"1\n2\n3\n4"}`, "<a>1\n2\n3\n4</a>"},
		"mixed":            {XML{}, `<p k="v">one <b>two</b> three</p>`, `{"p":{"@k":"v","#mixed":["one ",{"b":"two"}," three"]}}`, ""},
		"namespaces":       {XML{}, `<n:a xmlns:n="urn:x" n:k="1"><n:b/></n:a>`, `{"n:a":{"@xmlns:n":"urn:x","@n:k":"1","n:b":""}}`, ""},
		"CDATA":            {XML{}, `<a><![CDATA[<&>]]> and <![CDATA[more]]></a>`, `{"a":"<&> and more"}`, `<a>&lt;&amp;&gt; and more</a>`},
		"references":       {XML{}, `<a>&#65;&#x1F600;&amp;&apos;&quot;</a>`, `{"a":"A😀&'\""}`, `<a>A😀&amp;'"</a>`},
		"declaration":      {XML{}, "\ufeff<?xml version='1.0' encoding='utf-8' standalone=\"no\" ?><!-- - --><?p i?><a/><!---->", `{"a":""}`, `<a/>`},
		"names":            {XML{}, `<_é.b-1 ä="1"/>`, `{"_é.b-1":{"@ä":"1"}}`, ""},
		"arrays":           {XML{Arrays: []string{"b"}}, `<a><b>1</b><c>2</c></a>`, `{"a":{"b":["1"],"c":"2"}}`, ""},
		"order":            {XML{Order: []string{"z", "y"}}, `<a><z/><y>1</y><y>2</y><b/></a>`, `{"a":{"z":"","y":["1","2"],"b":""}}`, ""},
		"root":             {XML{Root: "case"}, `<case><b>1</b></case>`, `{"b":"1"}`, ""},
		"root, text":       {XML{Root: "case"}, `<case>x</case>`, `"x"`, ""},
		"items":            {XML{Root: "rows", Item: "row"}, `<rows><row><a>1</a></row><row>x</row></rows>`, `[{"a":"1"},"x"]`, ""},
		"no items":         {XML{Root: "rows", Item: "row"}, "<rows xmlns='urn:x'>\n</rows>", `[]`, `<rows></rows>`},
		"carriage return":  {XML{}, `<a>1&#13;2</a>`, `{"a":"1\r2"}`, ""},
		"attribute spaces": {XML{}, "<a b='1\n2\t3\r\n4'/>", `{"a":{"@b":"1 2 3 4"}}`, `<a b="1 2 3 4"/>`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.options.XMLToJSON([]byte(c.xml), "")
			if err != nil || string(got) != c.json {
				t.Fatalf("%s, %v; want %s", got, err, c.json)
			}
			if err := sdk.CheckJSON(got); err != nil {
				t.Fatal(err)
			}
			if c.back == "" {
				c.back = c.xml
			}
			if got, err = c.options.JSONToXML(got, ""); err != nil || string(got) != c.back {
				t.Errorf("back: %s, %v; want %s", got, err, c.back)
			}
		})
	}
}

func TestJSONToXML(t *testing.T) {
	for name, c := range map[string]struct {
		options   XML
		json, xml string
		fails     string
	}{
		"scalars":             {XML{}, `{"a":{"n":12345678901234567890.10,"t":true,"z":null,"s":""}}`, `<a><n>12345678901234567890.10</n><t>true</t><z/><s/></a>`, ""},
		"order of the body":   {XML{}, `{"a":{"z":1,"@k":2,"b":3}}`, `<a k="2"><z>1</z><b>3</b></a>`, ""},
		"order asked for":     {XML{Order: []string{"id", "name"}}, `{"a":{"aa":1,"name":{"name":2,"id":1},"id":3}}`, `<a><id>3</id><name><id>1</id><name>2</name></name><aa>1</aa></a>`, ""},
		"no attribute":        {XML{}, `{"a":{"@k":null}}`, `<a/>`, ""},
		"text beside":         {XML{}, `{"a":{"#text":"x","b":1}}`, "", "#text beside elements"},
		"two contents":        {XML{}, `{"a":{"#text":"x","#mixed":[]}}`, "", "one content"},
		"text is no text":     {XML{}, `{"a":{"#text":[1]}}`, "", "#text is an object or array"},
		"mixed is no array":   {XML{}, `{"a":{"#mixed":"x"}}`, "", "#mixed is no array"},
		"mixed number":        {XML{}, `{"a":{"#mixed":[1]}}`, "", "#mixed holds texts"},
		"two roots":           {XML{}, `{"a":1,"b":2}`, "", "one outermost element"},
		"no root":             {XML{}, `{}`, "", "one outermost element"},
		"an array":            {XML{}, `[1]`, "", "one outermost element"},
		"array in array":      {XML{}, `{"a":{"b":[[1]]}}`, "", "items of arrays"},
		"no items":            {XML{Root: "r"}, `[1]`, "", "name the elements"},
		"items of an object":  {XML{Root: "r", Item: "i"}, `{}`, "", "must be an array"},
		"no name":             {XML{}, `{"a b":1}`, "", `"a b" is no name of an element`},
		"no attribute's name": {XML{}, `{"a":{"@":1}}`, "", `"" is no name of an attribute`},
		"attribute object":    {XML{}, `{"a":{"@b":{}}}`, "", "is an object or array"},
		"character":           {XML{}, `{"a":"\u0000"}`, "", "U+0000"},
		"injection":           {XML{}, `{"a><b":1}`, "", "no name"},
		"given twice":         {XML{}, `{"a":{"b":1,"\u0062":2}}`, "", "given twice"},
		"not JSON":            {XML{}, `{`, "", "not JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.options.JSONToXML([]byte(c.json), "")
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Fatalf("%s, %v; want %q", got, err, c.fails)
				}
				return
			}
			if err != nil || string(got) != c.xml {
				t.Fatalf("%s, %v; want %s", got, err, c.xml)
			}
		})
	}
}

func TestXMLThatIsRefused(t *testing.T) {
	deep := strings.Repeat("<a>", sdk.MaxDepth)
	if err := CheckXML([]byte(deep + strings.Repeat("</a>", sdk.MaxDepth))); err != nil {
		t.Error("the deepest:", err)
	}
	for text, want := range map[string]string{
		"":                             "no element",
		"x":                            "text outside",
		"<a>":                          "not closed",
		"<a></b>":                      "is closed as b",
		"<a/><b/>":                     "second element",
		"<a/>x":                        "text outside",
		"<a/><![CDATA[]]>":             "text outside",
		"</a>":                         "without an opening",
		"<a b=1/>":                     "not in quotes",
		"<a b/>":                       "no value",
		"<a b='1'c='2'/>":              "tag of the element",
		"<a b='1' b='2'/>":             "given twice",
		"<a b='<'/>":                   "< in the value",
		"<a b='1/>":                    "not closed",
		"<a>&nbsp;</a>":                "reference",
		"<a>& </a>":                    "reference",
		"<a>&#0;</a>":                  "reference",
		"<a>&#xD800;</a>":              "reference",
		"<a>&#;</a>":                   "reference",
		"<a>]]></a>":                   "]]>",
		"<a><!-- -- --></a>":           "-- in a comment",
		"<a><!-- </a>":                 "comment is not closed",
		"<a><![CDATA[x</a>":            "not closed",
		"<a><?xml version='1.0'?></a>": "not at the beginning",
		" <?xml version='1.0'?><a/>":   "not at the beginning",
		"<?xml version='2.0'?><a/>":    "declaration",
		"<?xml?><a/>":                  "",
		"<!DOCTYPE a><a/>":             "DOCTYPE",
		`<!DOCTYPE a [<!ENTITY x "xx">]><a>&x;</a>`: "DOCTYPE",
		"<a>\x01</a>": "a character that XML does not have",
		"<a>\xff</a>": "not valid UTF-8",
		"<1a/>":       "name is expected",
		"<a ></a >":   "",
		"<a></a\n>":   "",
		deep + "<a>":  "nested deeper",
		"<?xml version='1.0' encoding='EBCDIC'?><a/>": "character set",
	} {
		err := CheckXML([]byte(text))
		switch {
		case want == "" && text == "<?xml?><a/>":
			if err == nil {
				t.Errorf("%q is taken", text)
			}
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	many := "<a"
	for i := range maxAttributes + 1 {
		many += " a" + strings.Repeat("b", i) + "=''"
	}
	if err := CheckXML([]byte(many + "/>")); err == nil || !strings.Contains(err.Error(), "attributes") {
		t.Error("too many attributes:", err)
	}
	var x XML
	if _, err := x.JSONToXML([]byte(`{"a":{"`+strings.Repeat("n", 1<<20)+`":[`+strings.Repeat("1,", 100)+`1]}}`), ""); !errors.Is(err, errTooLong) {
		t.Error("long names, repeated:", err)
	}
}

// FuzzXML: what is taken encoding/xml takes too; and what comes of it comes back.
func FuzzXML(f *testing.F) {
	for _, s := range []string{
		`<a/>`, `<a b="1">x<c>&lt;</c>y</a>`, "<?xml version='1.0'?><n:a xmlns:n='u'><!-- c --><n:b/><![CDATA[x]]></n:a>", `<a><b>1</b><b/><c d='e'/></a>`, "<a>\r\n<b/>&#13;</a>",
		`<p>one <b>two</b> three</p>`, `<a b='&#9; &quot;'/>`, "<a>é\u2028</a>",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if CheckXML(body) != nil {
			return
		}
		plain, err := decodeXML(body, "")
		if err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(bytes.NewReader(plain))
		d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
		for {
			if _, err := d.RawToken(); errors.Is(err, io.EOF) {
				break
			} else if err != nil && !bytes.ContainsAny(plain, ":") && !strings.Contains(err.Error(), "unsupported version") {
				t.Fatalf("%q: encoding/xml says %v", plain, err)
			} else if err != nil {
				break
			}
		}
		var x XML
		once, err := x.XMLToJSON(body, "")
		if err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		if err := sdk.CheckJSON(once); err != nil {
			if strings.Contains(err.Error(), "deeper") {
				return
			}
			t.Fatalf("%q gives %s: %v", body, once, err)
		}
		back, err := x.JSONToXML(once, "")
		if err != nil {
			t.Fatalf("%q gives %s: %v", body, once, err)
		}
		twice, err := x.XMLToJSON(back, "")
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%q gives %s, %s and %s: %v", body, once, back, twice, err)
		}
	})
}

// FuzzJSONToXML: what comes of JSON is XML.
func FuzzJSONToXML(f *testing.F) {
	for _, s := range []string{`{"a":{"@b":1,"c":[1,null,{"d":"\u0041"}]}}`, `{"a":{"#mixed":["x",{"b":1}]}}`, `{"a":{"#text":"<"}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var x XML
		out, err := x.JSONToXML(body, "")
		if err != nil {
			return
		}
		if err := CheckXML(out); err != nil && !strings.Contains(err.Error(), "nested deeper") {
			t.Fatalf("%q gives %q: %v", body, out, err)
		}
	})
}
