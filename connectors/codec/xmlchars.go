package codec

import (
	"regexp"
	"unicode/utf8"
)

func isXMLSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// isXMLChar tells the characters that a document may have.
func isXMLChar(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' || r >= ' ' && r <= 0xd7ff || r >= 0xe000 && r <= 0xfffd || r >= 0x10000 && r <= utf8.MaxRune
}

func isXMLNameByte(c byte, first bool) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', c == ':':
		return true
	case c >= '0' && c <= '9', c == '-', c == '.':
		return !first
	}
	return false
}

// isXMLNameRune tells the characters of names beyond ASCII.
func isXMLNameRune(r rune, first bool) bool {
	switch {
	case r >= 0xc0 && r <= 0x2ff && r != 0xd7 && r != 0xf7, r >= 0x370 && r <= 0x1fff && r != 0x37e, r == 0x200c, r == 0x200d,
		r >= 0x2070 && r <= 0x218f, r >= 0x2c00 && r <= 0x2fef, r >= 0x3001 && r <= 0xd7ff, r >= 0xf900 && r <= 0xfdcf,
		r >= 0xfdf0 && r <= 0xfffd, r >= 0x10000 && r <= 0xeffff:
		return true
	case r == 0xb7, r >= 0x300 && r <= 0x36f, r == 0x203f, r == 0x2040:
		return !first
	}
	return false
}

// isXMLName tells whether a text can be an element's or attribute's name.
func isXMLName[T string | []byte](name T) bool {
	for i, r := range string(name) {
		if r < utf8.RuneSelf && !isXMLNameByte(byte(r), i == 0) || r >= utf8.RuneSelf && !isXMLNameRune(r, i == 0) {
			return false
		}
	}
	return len(name) > 0
}

var (
	xmlDeclaration = regexp.MustCompile(`^\s+version\s*=\s*(?:"1\.[0-9]+"|'1\.[0-9]+')(?:\s+encoding\s*=\s*(?:"([A-Za-z][A-Za-z0-9._-]*)"|'([A-Za-z][A-Za-z0-9._-]*)'))?(?:\s+standalone\s*=\s*(?:"(?:yes|no)"|'(?:yes|no)'))?\s*$`)
)

// isXMLDeclaration tells whether a text is what stands between `<?xml` and `?>`.
func isXMLDeclaration(text string) bool { return xmlDeclaration.MatchString(text) }
