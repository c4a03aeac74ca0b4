package verify

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// metricName is a metric where it is made: a whole string.
var metricName = regexp.MustCompile(`"(metip_[a-z_]+)"`)

// TestMetricsAreDocumented: docs/metrics.md names every metric of operator and connectors, and none that is not there.
func TestMetricsAreDocumented(t *testing.T) {
	page := string(read(t, filepath.Join(root, "docs/metrics.md")))
	made := map[string]bool{"metip_status": true, "metip_received": true} // the stream of reports and a sink's table, no metrics
	for _, path := range sources(t, "*.go") {
		if strings.HasSuffix(path, "_test.go") || !strings.HasPrefix(path, "connectors/engine/") && !strings.HasPrefix(path, "connectors/systems/") && !strings.HasPrefix(path, "controllers/") {
			continue
		}
		for _, m := range metricName.FindAllStringSubmatch(string(read(t, filepath.Join(root, path))), -1) {
			if !made[m[1]] && !strings.Contains(page, "`"+m[1]+"`") {
				t.Errorf("%s makes %s, which docs/metrics.md does not have", path, m[1])
			}
			made[m[1]] = true
		}
	}
	for _, m := range regexp.MustCompile("`(metip_[a-z_]+)`").FindAllStringSubmatch(page, -1) {
		if !made[m[1]] {
			t.Errorf("docs/metrics.md has %s, which nothing makes", m[1])
		}
	}
}
