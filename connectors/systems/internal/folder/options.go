package folder

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"time"
	"unicode/utf8"

	"github.com/metip/metip/connectors/codec"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/systems/internal/quantity"
)

const (
	defaultStable  = 5 * time.Second
	defaultRescan  = 10 * time.Second
	defaultMaxFile = 1 << 20
)

// SourceOptions are what the JSON of the API's sources of files has in common.
type SourceOptions struct {
	Folder         string             `json:"folder"`
	Pattern        string             `json:"pattern"`
	Order          string             `json:"order"`
	StableFor      *contract.Duration `json:"stableFor"`
	RescanEvery    *contract.Duration `json:"rescanEvery"`
	LockSuffix     string             `json:"lockSuffix"`
	IgnoreSuffixes []string           `json:"ignoreSuffixes"`
	Done           string             `json:"done"`
	DoneFolder     string             `json:"doneFolder"`
	FailedFolder   string             `json:"failedFolder"`
	Charset        string             `json:"charset"`
	Records        struct {
		Whole *struct {
			MaxSize quantity.Quantity `json:"maxSize"`
		} `json:"whole"`
		Lines *struct{} `json:"lines"`
		CSV   *struct {
			Delimiter string   `json:"delimiter"`
			Header    string   `json:"header"`
			Columns   []string `json:"columns"`
		} `json:"csv"`
		FixedWidth *struct {
			Columns []Column `json:"columns"`
		} `json:"fixedWidth"`
		XML *struct {
			Element string   `json:"element"`
			Arrays  []string `json:"arrays"`
		} `json:"xml"`
	} `json:"records"`
}

// Options are what they say of the folder, defaults filled in.
func (o *SourceOptions) Options(c *contract.Config) (Options, error) {
	out := Options{
		Folder: o.Folder, Pattern: orElse(o.Pattern, "*"), ByTime: o.Order == "Time", StableFor: defaultStable, Rescan: defaultRescan,
		LockSuffix: o.LockSuffix, IgnoreSuffixes: o.IgnoreSuffixes, Charset: o.Charset, MaxFile: defaultMaxFile,
		Format: c.Source.Format, Owner: c.Connector.UID, Kind: Whole,
	}
	if o.IgnoreSuffixes == nil {
		out.IgnoreSuffixes = []string{".tmp", ".part", ".filepart"}
	}
	if o.StableFor != nil {
		out.StableFor = time.Duration(*o.StableFor)
	}
	if o.RescanEvery != nil {
		out.Rescan = max(time.Second, time.Duration(*o.RescanEvery))
	}
	for _, name := range []string{o.Folder, o.DoneFolder, o.FailedFolder} {
		if name != "" && (!filepath.IsLocal(name) || path.Clean(name) != name) {
			return out, fmt.Errorf("%q is no path within the volume: write it as in/arrests, without .. and without / before or after", name)
		}
	}
	if o.Done != "Delete" {
		out.Done = orElse(o.DoneFolder, path.Join(o.Folder, "done"))
	}
	out.Failed = orElse(o.FailedFolder, path.Join(o.Folder, "failed"))
	out.Folder = path.Clean(out.Folder)
	kinds := 0
	r := &o.Records
	if r.Whole != nil {
		kinds++
		if r.Whole.MaxSize > 0 {
			out.MaxFile = min(int64(r.Whole.MaxSize), contract.MaxClaimSize)
		}
	}
	if r.Lines != nil {
		kinds++
		out.Kind = Lines
	}
	if r.CSV != nil {
		kinds++
		out.Kind = CSV
		out.Table = codec.CSV{NoHeader: r.CSV.Header == "Absent", Columns: r.CSV.Columns}
		if r.CSV.Delimiter != "" {
			out.Table.Delimiter, _ = utf8.DecodeRuneInString(r.CSV.Delimiter)
		}
	}
	if r.FixedWidth != nil {
		kinds++
		out.Kind, out.Columns = Fixed, r.FixedWidth.Columns
	}
	if r.XML != nil {
		kinds++
		out.Kind, out.Elements = XML, Elements{Element: r.XML.Element, Arrays: r.XML.Arrays}
	}
	if kinds != 1 {
		return out, errors.New("records: exactly one of whole, lines, csv, fixedWidth and xml is needed")
	}
	return out, nil
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
