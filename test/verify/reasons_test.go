package verify

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Pods report reasons, the operator repeats them as the API's: the two packages may not import each other, so that this holds them together.
func TestReasonsOfReportsAreThoseOfTheAPI(t *testing.T) {
	api := stringConstants(t, "api/v1alpha1/conditions.go", "Reason")
	for name, value := range stringConstants(t, "connectors/contract/report.go", "Reason") {
		if api[name] != value {
			t.Errorf("contract.%s is %q, the API's is %q", name, value, api[name])
		}
	}
}

// What nothing reports must not be documented.
func TestEveryConditionAndReasonIsReported(t *testing.T) {
	var code bytes.Buffer
	for _, path := range sources(t, "*.go") {
		if !strings.HasSuffix(path, "_test.go") && !strings.HasPrefix(path, "api/") && !strings.HasPrefix(path, "test/") {
			code.Write(read(t, filepath.Join(root, path)))
		}
	}
	for _, prefix := range []string{"Condition", "Reason"} {
		for name := range stringConstants(t, "api/v1alpha1/conditions.go", prefix) {
			if !bytes.Contains(code.Bytes(), []byte("v1alpha1."+name)) && !bytes.Contains(code.Bytes(), []byte("contract."+name)) {
				t.Errorf("nothing reports v1alpha1.%s: delete it, or report it", name)
			}
		}
	}
}

// stringConstants of a file whose name has the prefix, with their values.
func stringConstants(t *testing.T, path, prefix string) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	constants := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, prefix) || len(spec.Values) != 1 {
			return true
		}
		if literal, ok := spec.Values[0].(*ast.BasicLit); ok {
			value, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			constants[spec.Names[0].Name] = value
		}
		return true
	})
	if len(constants) == 0 {
		t.Fatalf("%s has no constant that begins with %s", path, prefix)
	}
	return constants
}
