package folder

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

const (
	// OwnFolder holds what is the connector's own.
	OwnFolder = ".metip"
	// maxName of a file, in bytes, and maxPath.
	maxName = 255
	maxPath = 1024
)

// Path is a template of paths within a folder.
type Path struct {
	*steps.Template
	// Fixed: it looks at no message.
	Fixed bool
}

// CompilePath of a file, below the folder that files are written to.
func CompilePath(text string) (Path, error) {
	if text == "" || strings.HasPrefix(text, "/") || strings.HasSuffix(text, "/") {
		return Path{}, fmt.Errorf("path %q is no path within the folder: write it as out/{data.id}.json", text)
	}
	t, err := steps.CompileTemplate(text)
	if err != nil {
		return Path{}, fmt.Errorf("path: %w", err)
	}
	return Path{t, !strings.ContainsAny(text, "{}")}, nil
}

// For a message. An error is the message's own.
func (t Path) For(m *sdk.Message) (string, error) {
	empty := false
	name, err := t.Expand(m, func(value string) string {
		empty = empty || value == ""
		return escape(value)
	})
	if err != nil {
		return "", sdk.Permanent(fmt.Errorf("path: %w", err))
	}
	if empty {
		return "", sdk.Permanentf("path %.200q: one of its expressions is empty", name)
	}
	if !filepath.IsLocal(name) || path.Clean(name) != name || len(name) > maxPath {
		return "", sdk.Permanentf("%.200q is no path within the folder", name)
	}
	for element := range strings.SplitSeq(name, "/") {
		if element == OwnFolder || len(element) > maxName {
			return "", sdk.Permanentf("%.300q is no name that a file may have: it is the connector's own, or longer than %d bytes", element, maxName)
		}
	}
	return name, nil
}

// escape a value so that it is part of one name, whatever it holds; another value gives another text.
func escape(value string) string {
	var out strings.Builder
	for i := 0; i < len(value); {
		r, size := utf8.DecodeRuneInString(value[i:])
		switch {
		case r == utf8.RuneError, !unicode.IsPrint(r), strings.ContainsRune(`/\%:*?"<>|`, r), r == '.' && i == 0:
			for _, b := range []byte(value[i : i+size]) {
				fmt.Fprintf(&out, "%%%02X", b)
			}
		default:
			out.WriteString(value[i : i+size])
		}
		i += size
	}
	return out.String()
}
