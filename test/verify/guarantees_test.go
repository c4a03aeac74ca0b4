package verify

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	namedTest    = regexp.MustCompile("`([a-z]+)\\.(Test[A-Za-z0-9]+)`")
	declaredTest = regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(t \*testing\.T\)`)
)

// guarantees are the documents that promise something, with how many rows their tables of promises have at least.
var guarantees = map[string]int{"docs/guarantees.md": 40, "docs/claim-checks.md": 14}

// TestGuaranteesAreTested: each test that a document of guarantees names exists, and each row of its tables that have a column for one names one.
func TestGuaranteesAreTested(t *testing.T) {
	declared := map[string]bool{}
	for _, path := range sources(t, "*_test.go") {
		for _, m := range declaredTest.FindAllSubmatch(read(t, filepath.Join(root, path)), -1) {
			declared[filepath.Base(filepath.Dir(path))+"."+string(m[1])] = true
		}
	}
	for document, atLeast := range guarantees {
		checkGuarantees(t, document, atLeast, declared)
	}
}

func checkGuarantees(t *testing.T, document string, atLeast int, declared map[string]bool) {
	t.Helper()
	text := string(read(t, filepath.Join(root, document)))
	for _, m := range namedTest.FindAllStringSubmatch(text, -1) {
		if name := m[1] + "." + m[2]; !declared[name] {
			t.Errorf("%s names %s, which does not exist", document, name)
		}
	}
	rows, within := 0, false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case !strings.HasPrefix(line, "|"):
			within = false
		case strings.HasSuffix(line, "| test |"):
			within = true
		case within && !strings.HasPrefix(line, "|---"):
			rows++
			cells := strings.Split(strings.Trim(line, "|"), "|")
			if !namedTest.MatchString(cells[len(cells)-1]) {
				t.Errorf("%s: no test is named behind: %s", document, line)
			}
		}
	}
	if rows < atLeast {
		t.Errorf("%s has %d rows with a test", document, rows)
	}
}

// TestDeadLetterReasonsAreDocumented: docs/guarantees.md has every reason of a dead letter.
func TestDeadLetterReasonsAreDocumented(t *testing.T) {
	text := string(read(t, filepath.Join(root, "docs/guarantees.md")))
	for _, path := range sources(t, "connectors/contract/*.go") {
		for _, m := range regexp.MustCompile(`\bDeadReason\w+\s+= "(\w+)"`).FindAllSubmatch(read(t, filepath.Join(root, path)), -1) {
			if !strings.Contains(text, "| `"+string(m[1])+"` |") {
				t.Errorf("docs/guarantees.md does not explain the dead-letter reason %s", m[1])
			}
		}
	}
}
