package openapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/metip/metip/connectors/schema"
	"github.com/metip/metip/connectors/sdk"
)

// Bounds of a document.
const (
	// MaxSize of its text, in bytes.
	MaxSize = 256 << 10
	// maxOperations, and maxParameters of each.
	maxOperations = 500
	maxParameters = 64
)

// Document is compiled. It is safe for concurrent use.
type Document struct {
	// paths by their number of segments; those whose segments are plain come first.
	paths map[int][]*pathItem
}

// pathItem is a path and what can be done with it.
type pathItem struct {
	template   string
	segments   []segment
	operations map[string]*Operation
}

// segment of a path: plain text, or what stands for a parameter. pattern is nil where the whole segment is one.
type segment struct {
	plain   string
	names   []string
	pattern *regexp.Regexp
}

// Operation of a document: a method of a path.
type Operation struct {
	name       string
	path       *pathItem
	parameters []parameter
	body       *body
	// answers by status: "200", "4XX", "default".
	answers map[string]*body
}

// parameter of a request.
type parameter struct {
	name, in string
	required bool
	// list says that several values are a list, separated by commas where explode is false.
	list, explode bool
	types         []string
	items         []string
	// schema is nil where the value is not looked at.
	schema *schema.Schema
}

// body of a request or an answer.
type body struct {
	required bool
	// media types, lower case, and their schemas; nil for one that is not JSON or has none. Empty: nothing is said of the body.
	media map[string]*schema.Schema
}

// Compile the text of a document, which is JSON. An error names the place as a JSON pointer.
func Compile(text string) (*Document, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("the document has %d KiB, and at most %d KiB are allowed", (len(text)+1023)>>10, MaxSize>>10)
	}
	if err := sdk.CheckJSON([]byte(text)); err != nil {
		return nil, fmt.Errorf("the document is not JSON: %w", err)
	}
	var root map[string]any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&root); err != nil {
		return nil, fmt.Errorf("the document is not a JSON object: %w", err)
	}
	version, _ := root["openapi"].(string)
	switch {
	case strings.HasPrefix(version, "3.0."):
		modernise(root)
	case !strings.HasPrefix(version, "3.1.") && !strings.HasPrefix(version, "3.2."):
		return nil, fmt.Errorf("openapi is %q: write a document of OpenAPI 3.0 or 3.1", version)
	}
	c := &compiler{root: root, document: &Document{paths: map[int][]*pathItem{}}, schemas: map[string]*schema.Schema{}}
	return c.document, c.paths()
}

// modernise a document of 3.0, whose schemas differ from JSON Schema in how they say null and exclusive bounds.
func modernise(v any) {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			modernise(x)
		}
	case map[string]any:
		if nullable, _ := v["nullable"].(bool); nullable {
			if t, ok := v["type"].(string); ok {
				v["type"] = []any{t, "null"}
			}
			if list, ok := v["enum"].([]any); ok && !slices.Contains(list, nil) {
				v["enum"] = append(list, nil)
			}
		}
		for exclusive, bound := range map[string]string{"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"} {
			if is, ok := v[exclusive].(bool); ok {
				delete(v, exclusive)
				if limit, has := v[bound]; is && has {
					v[exclusive] = limit
					delete(v, bound)
				}
			}
		}
		for _, x := range v {
			modernise(x)
		}
	}
}

var methods = []string{
	http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete, http.MethodOptions, http.MethodHead, http.MethodPatch, "QUERY",
}
