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

// TestGuaranteesAreTested: each test that docs/guarantees.md names exists, and each row of its tables that have a column for one names one.
func TestGuaranteesAreTested(t *testing.T) {
	declared := map[string]bool{}
	for _, path := range sources(t, "*_test.go") {
		for _, m := range declaredTest.FindAllSubmatch(read(t, filepath.Join(root, path)), -1) {
			declared[filepath.Base(filepath.Dir(path))+"."+string(m[1])] = true
		}
	}
	text := string(read(t, filepath.Join(root, "docs/guarantees.md")))
	for _, m := range namedTest.FindAllStringSubmatch(text, -1) {
		if name := m[1] + "." + m[2]; !declared[name] {
			t.Errorf("docs/guarantees.md names %s, which does not exist", name)
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
				t.Errorf("docs/guarantees.md: no test is named behind: %s", line)
			}
		}
	}
	if rows < 40 {
		t.Errorf("docs/guarantees.md has %d rows with a test", rows)
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
