package http

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// Header values of CloudEvents are percent-encoded (HTTP protocol binding 3.1.3.2): whatever is not printable ASCII, and space, double
// quote and percent.

const hexDigits = "0123456789ABCDEF"

func plainInHeader(c byte) bool { return c > ' ' && c < 0x7f && c != '"' && c != '%' }

func encodeAttribute(s string) string {
	n := 0
	for i := 0; i < len(s); i++ {
		if !plainInHeader(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 2*n)
	for i := 0; i < len(s); i++ {
		if c := s[i]; plainInHeader(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
		}
	}
	return b.String()
}

// decodeAttribute is the inverse. A percent sign that begins no escape stays what it is, as the binding asks receivers to be lenient.
// Surrounding double quotes are taken off.
func decodeAttribute(s string) (string, error) {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	if strings.IndexByte(s, '%') >= 0 {
		b := make([]byte, 0, len(s))
		for i := 0; i < len(s); i++ {
			if s[i] == '%' && i+2 < len(s) {
				high, low := unhex(s[i+1]), unhex(s[i+2])
				if high >= 0 && low >= 0 {
					b = append(b, byte(high<<4|low))
					i += 2
					continue
				}
			}
			b = append(b, s[i])
		}
		s = string(b)
	}
	return s, checkAttribute(s)
}

var errAttribute = errors.New("it holds control characters or is not UTF-8")

// checkAttribute refuses what could break a header apart on its further way.
func checkAttribute(s string) error {
	ascii := true
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7f {
			return errAttribute
		}
		ascii = ascii && s[i] < utf8.RuneSelf
	}
	if !ascii && !utf8.ValidString(s) {
		return errAttribute
	}
	return nil
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
