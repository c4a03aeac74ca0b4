package verify

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/metip/metip/connectors/contract"
)

// TestExternalBrokersOfferEverything: the commands that prepare a broker of somebody else's name every subject that pods use.
func TestExternalBrokersOfferEverything(t *testing.T) {
	text := string(read(t, filepath.Join(root, "docs/broker.md")))
	for _, e := range contract.BusExports() {
		for _, subject := range []string{e.Subject, e.Local} {
			if subject != "" && !strings.Contains(text, "'"+subject+"'") {
				t.Errorf("docs/broker.md does not export and import %s", subject)
			}
		}
	}
}
