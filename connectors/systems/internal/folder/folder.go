package folder

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/metip/metip/connectors/codec"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// File is one in a folder.
type File struct {
	// Name is its path.
	Name     string
	Size     int64
	Modified time.Time
	// Regular: neither a folder nor a link nor a device.
	Regular bool
}

// id is the same as long as the file is.
func (f File) id() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%d", f.Name, f.Modified.UnixNano(), f.Size))
	return hex.EncodeToString(sum[:12])
}

func (f File) same(g File) bool { return f.Size == g.Size && f.Modified.Equal(g.Modified) }

// FS is where folders are. Paths are relative to its root, with slashes. An error that means that there is no such file wraps fs.ErrNotExist.
type FS interface {
	// List calls each with the names in a folder, in any order.
	List(folder string, each func(name string) error) error
	// Stat does not follow links.
	Stat(name string) (File, error)
	// Open reads a regular file from an offset.
	Open(name string, offset int64) (io.ReadCloser, error)
	// Rename at once; a file of the new name is replaced.
	Rename(from, to string) error
	Remove(name string) error
	// Mkdir makes one folder in another one.
	Mkdir(folder string) error
	// Write a small file so that it is there wholly or not at all.
	Write(name string, data []byte) error
}

// Kind of records.
type Kind string

// The kinds.
const (
	Whole Kind = "whole"
	Lines Kind = "lines"
	CSV   Kind = "csv"
	Fixed Kind = "fixedWidth"
	XML   Kind = "xml"
)

// Options of an Intake; all are set.
type Options struct {
	// Folder that is read, and Pattern (path.Match) of names in it. Names that begin with a dot are never taken.
	Folder, Pattern string
	// ByTime takes the oldest file first instead of the first by name.
	ByTime bool
	// StableFor is how long a file must not have changed; 0 takes it at once.
	StableFor time.Duration
	// Rescan is how long nothing is looked for where nobody says that something has changed.
	Rescan time.Duration
	// LockSuffix: a file is left alone while there is one of its name and this; empty for none.
	LockSuffix string
	// IgnoreSuffixes are of files that are being written.
	IgnoreSuffixes []string
	// Done is the folder for what was taken in; empty deletes it. Failed is that for what cannot be.
	Done, Failed string
	Kind         Kind
	// Table is how rows are written (CSV), and Columns are those of fixed width.
	Table   codec.CSV
	Columns []Column
	// Elements are the records of documents (XML).
	Elements Elements
	// Charset of the files; empty means UTF-8.
	Charset string
	// MaxFile is the largest file that becomes one message.
	MaxFile int64
	// Format of the messages.
	Format string
	// Owner tells the notes of several readers of a folder apart.
	Owner string
	// Endpoint names the folder in errors.
	Endpoint string
}

// Column of a fixed width, in characters.
type Column struct {
	Name  string `json:"name"`
	Width int    `json:"width"`
}

// Check what can never work.
func (o *Options) Check() error {
	if _, err := path.Match(o.Pattern, "x"); err != nil || o.Pattern == "" || strings.Contains(o.Pattern, "/") {
		return fmt.Errorf("pattern %q is not one of a file's name: * is any characters, ? is one, [a-z] is one of these", o.Pattern)
	}
	if err := codec.CheckCharset(o.Charset); err != nil {
		return err
	}
	if o.Kind != Whole && strings.HasPrefix(strings.ToUpper(o.Charset), "UTF-16") {
		return errors.New("records are not found in UTF-16: take whole files, and convert and split them in a Route")
	}
	if o.Charset != "" && o.Format != sdk.FormatJSON && o.Format != sdk.FormatText {
		return fmt.Errorf("charset goes with formats JSON and Text, not with %s", o.Format)
	}
	if (o.Kind == CSV || o.Kind == Fixed) && o.Format != sdk.FormatJSON {
		return fmt.Errorf("rows become JSON objects: format %s does not go with %s", o.Format, o.Kind)
	}
	if o.Kind == XML && o.Format != sdk.FormatXML && o.Format != sdk.FormatJSON {
		return fmt.Errorf("elements become XML or JSON: format %s does not go with xml", o.Format)
	}
	if o.Kind == XML && o.Charset != "" {
		return errors.New("charset does not go with xml, which says its own")
	}
	if o.MaxFile > contract.MaxMessageSize && (o.Kind != Whole || o.Format != sdk.FormatBinary) {
		return fmt.Errorf("files over %d bytes are not looked into: they need format Binary", contract.MaxMessageSize)
	}
	if o.Kind == XML {
		names := codec.XML{Arrays: append([]string{o.Elements.Element}, o.Elements.Arrays...)}
		if err := names.Check(); err != nil || o.Elements.Element == "" {
			return errors.Join(errors.New("xml needs the name of an element"), err)
		}
	}
	if o.Kind == Fixed && len(o.Columns) == 0 {
		return errors.New("fixedWidth needs columns")
	}
	for _, c := range o.Columns {
		if c.Width < 1 || c.Name == "" {
			return errors.New("a column of fixed width needs a name and a width of at least 1")
		}
	}
	for _, folder := range []string{o.Done, o.Failed} {
		if folder == o.Folder {
			return fmt.Errorf("%s is the folder that is read: name another one", folder)
		}
	}
	return o.Table.Check()
}
