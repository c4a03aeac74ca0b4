// Package oneline makes what a system says fit for an error: on one line, printable and short.
package oneline

import (
	"strings"
	"unicode"
)

// Excerpt is the beginning of a text, of about so many bytes. White space and what does not print become single blanks.
func Excerpt(text string, most int) string {
	var b strings.Builder
	space := false
	for _, r := range text {
		if unicode.IsSpace(r) || !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			space = b.Len() > 0
			continue
		}
		if b.Len() >= most {
			b.WriteString("...")
			break
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(r)
	}
	return b.String()
}
