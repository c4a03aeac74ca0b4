package catalog

import (
	_ "embed"
	"fmt"
	"io"
	"text/tabwriter"
)

// document is what tools read: every system, with the options of its roles as JSON Schema. It is generated from the API (make generate).
//
//go:embed catalog.json
var document string

// Describe the systems: as a table, or as JSON with the options of each role as JSON Schema.
func Describe(w io.Writer, format string) error {
	switch format {
	case "json":
		_, err := io.WriteString(w, document)
		return err
	case "table":
	default:
		return fmt.Errorf("format %q is neither table nor json", format)
	}
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "SYSTEM\tSOURCE\tSINK\tSERVICE")
	yes := map[bool]string{true: "yes", false: "-"}
	for _, s := range Systems() {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", s.Name, yes[s.Source != nil], yes[s.Sink != nil], yes[s.Service != nil])
	}
	return table.Flush()
}
