// Package specs runs a suite of Ginkgo's so that go test knows which of its specs failed.
package specs

import (
	"fmt"
	"testing"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"
)

// Run all specs of the package. What fails fails as a subtest too, of the spec's name and with no more than the failure itself: what lists
// failed tests then lists specs, and tells why, however much else they print.
func Run(t *testing.T, suite string) {
	t.Helper()
	gomega.RegisterFailHandler(ginkgo.Fail)
	var failed types.SpecReports
	ginkgo.ReportAfterSuite(suite, func(r ginkgo.Report) {
		for _, s := range r.SpecReports {
			if s.Failed() {
				failed = append(failed, s)
			}
		}
	})
	ginkgo.RunSpecs(t, suite)
	for _, s := range failed {
		t.Run(name(s), func(t *testing.T) { t.Error(why(s)) })
	}
}

func name(s types.SpecReport) string {
	if text := s.FullText(); text != "" {
		return text
	}
	return s.LeafNodeType.String() // BeforeSuite and the like have no text
}

func why(s types.SpecReport) string {
	return fmt.Sprintf("%s after %s, at %s:\n%s", s.State, s.RunTime.Round(1e7), s.Failure.Location, s.Failure.Message)
}
