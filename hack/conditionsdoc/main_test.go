package main

import (
	"bytes"
	"go/parser"
	"go/token"
	"strings"
	"testing"
)

func generate(t *testing.T, constants string) (string, error) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "conditions.go", "package p\nconst (\n"+constants+"\n)\n", parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = write(&out, file)
	return out.String(), err
}

func TestWrite(t *testing.T) {
	got, err := generate(t, `
	// ConditionReady sums the others
	// up: data flows.
	ConditionReady = "Ready"
	// ReasonNoReport (Connected, Unknown): no pod has reported a|b.
	ReasonNoReport = "NoReport"`)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| `Ready` | Sums the others up: data flows. |\n",
		"| `NoReport` | Connected, Unknown | No pod has reported a\\|b. |\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no line %q in:\n%s", want, got)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, constants := range map[string]string{
		"no comment":               `ReasonX = "X"`,
		"another comment":          "// It is X.\nReasonX = \"X\"",
		"a reason without a place": "// ReasonX means something.\nReasonX = \"X\"",
		"a stranger":               "// Other constant.\nOther = \"X\"",
		"no string":                "// ReasonX (Ready, True): one.\nReasonX = 1",
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := generate(t, constants); err == nil {
				t.Errorf("accepted:\n%s", got)
			}
		})
	}
}
