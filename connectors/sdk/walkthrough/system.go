package walkthrough

import "github.com/metip/metip/connectors/sdk"

// System is the line that the catalogue would have.
func System() sdk.System {
	return sdk.System{Name: "registry", Source: NewSource, Sink: NewSink}
}
