package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: conditionsdoc api/v1alpha1/conditions.go > docs/reference/conditions.md")
		os.Exit(2)
	}
	file, err := parser.ParseFile(token.NewFileSet(), os.Args[1], nil, parser.ParseComments)
	if err == nil {
		err = write(os.Stdout, file)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "conditionsdoc:", err)
		os.Exit(1)
	}
}

const (
	conditionPrefix = "Condition"
	reasonPrefix    = "Reason"
)

// constant is a documented string constant.
type constant struct {
	name, value, doc string
}

func write(w io.Writer, file *ast.File) error {
	constants, err := read(file)
	if err != nil {
		return err
	}
	var conditions, reasons []constant
	for _, c := range constants {
		switch {
		case strings.HasPrefix(c.name, conditionPrefix):
			conditions = append(conditions, c)
		case strings.HasPrefix(c.name, reasonPrefix):
			reasons = append(reasons, c)
		default:
			return fmt.Errorf("%s is neither a condition nor a reason", c.name)
		}
	}
	b := &strings.Builder{}
	b.WriteString("<!-- Written by `make generate` from api/v1alpha1/conditions.go: change it there. -->\n\n# Conditions and reasons\n\n" +
		"What `.status.conditions` of a Broker, Integration, Connector or Route can say. [Concepts](../concepts.md#status) explains how\n" +
		"the conditions hang together and which kind has which; a condition that does not apply is absent. A condition's message\n" +
		"names the object, the endpoint and what to do. An Event has the reason of the condition whose change it tells.\n\n" +
		"## Conditions\n\n| Condition | What it says |\n|---|---|\n")
	for _, c := range conditions {
		fmt.Fprintf(b, "| `%s` | %s |\n", c.value, sentence(strings.TrimPrefix(c.doc, c.name+" ")))
	}
	b.WriteString("\n## Reasons\n\n| Reason | Reported in | What it means |\n|---|---|---|\n")
	for _, c := range reasons {
		where, meaning, err := splitReason(c)
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", c.value, where, sentence(meaning))
	}
	_, err = io.WriteString(w, b.String())
	return err
}

// reasonDoc is how the comment of a reason is written: "ReasonX (Condition, Status): what it means."
var reasonDoc = regexp.MustCompile(`^\w+ \(([^)]+)\): (.+)$`)

func splitReason(c constant) (where, meaning string, err error) {
	m := reasonDoc.FindStringSubmatch(c.doc)
	if m == nil {
		return "", "", fmt.Errorf("the comment of %s must read %q, it is %q", c.name, c.name+" (Condition, Status): meaning.", c.doc)
	}
	return m[1], m[2], nil
}

// sentence begins with a capital, unless it begins with a field's name.
func sentence(s string) string {
	s = strings.ReplaceAll(s, "|", `\|`)
	if first, _, _ := strings.Cut(s, " "); strings.Contains(first, ".") {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// read returns the file's string constants in order. Each needs a comment that begins with its name.
func read(file *ast.File) ([]constant, error) {
	var all []constant
	for _, decl := range file.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		for _, spec := range group.Specs {
			c, err := readConstant(spec.(*ast.ValueSpec)) // a const declaration holds nothing else
			if err != nil {
				return nil, err
			}
			all = append(all, c)
		}
	}
	return all, nil
}

func readConstant(spec *ast.ValueSpec) (constant, error) {
	name := spec.Names[0].Name
	if len(spec.Values) != 1 {
		return constant{}, fmt.Errorf("%s has no value of its own", name)
	}
	literal, ok := spec.Values[0].(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return constant{}, fmt.Errorf("%s is not a string", name)
	}
	value, err := strconv.Unquote(literal.Value)
	if err != nil {
		return constant{}, fmt.Errorf("value of %s: %w", name, err)
	}
	doc := strings.Join(strings.Fields(spec.Doc.Text()), " ")
	if !strings.HasPrefix(doc, name+" ") {
		return constant{}, fmt.Errorf("the comment of %s must begin with its name", name)
	}
	return constant{name: name, value: value, doc: doc}, nil
}
