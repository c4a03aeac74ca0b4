package e2e_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"sync"

	. "github.com/onsi/ginkgo/v2"
)

// measures that the suite takes on the way; they are printed, and written to out/e2e-measures.json.
type measures struct {
	mu  sync.Mutex
	all []measure
}

type measure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

func (m *measures) add(name string, value float64, unit string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, measure{name, value, unit})
	AddReportEntry(name, ReportEntryVisibilityAlways, measure{name, value, unit})
}

func (m *measures) write(path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	content, err := json.MarshalIndent(m.all, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(content, '\n'), 0o644)
}
