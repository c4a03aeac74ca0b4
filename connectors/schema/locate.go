package schema

import (
	"encoding/json"
	"errors"
	"regexp"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// located makes an *Error of what the compiler says, with its place in the text.
func located(text string, err error) *Error {
	var e *Error
	var invalid *jsonschema.SchemaValidationError
	switch {
	case errors.As(err, &e):
		e = &Error{Pointer: e.Pointer, Message: e.Message}
	case errors.As(err, &invalid):
		e = &Error{Pointer: pointerIn(invalid.URL), Message: "it is no schema"}
		var violation *jsonschema.ValidationError
		if errors.As(invalid.Err, &violation) {
			for len(violation.Causes) > 0 {
				violation = violation.Causes[0]
			}
			for _, t := range violation.InstanceLocation {
				e.Pointer += "/" + escape(t)
			}
			e.Message = violation.ErrorKind.LocalizedString(message.NewPrinter(language.English))
		}
	default:
		e = &Error{Pointer: pointerIn(err.Error()), Message: strings.ReplaceAll(err.Error(), home, "")}
		if at := syntaxAt.FindStringSubmatch(e.Message); at != nil {
			e.Offset, _ = strconv.Atoi(at[1]) // digits
			return e
		}
	}
	e.Offset = offsetOf(text, e.Pointer)
	return e
}

var (
	// syntaxAt is how sdk.CheckJSON gives a position.
	syntaxAt  = regexp.MustCompile(`^JSON at byte (\d+):`)
	inMessage = regexp.MustCompile(regexp.QuoteMeta(home) + `#(/[^"'\s]*)`)
)

// pointerIn a text that holds the address of a place in the schema.
func pointerIn(text string) string {
	if m := inMessage.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// offsetOf the value that a JSON pointer leads to, or of the last one on the way that there is. The text is JSON.
func offsetOf(text, pointer string) int {
	l := locator{dec: json.NewDecoder(strings.NewReader(text)), text: text}
	l.dec.UseNumber()
	var tokens []string
	if pointer != "" {
		tokens = strings.Split(pointer[1:], "/")
	}
	for i, t := range tokens {
		tokens[i] = strings.ReplaceAll(strings.ReplaceAll(t, "~1", "/"), "~0", "~")
	}
	l.value(tokens)
	return l.found
}

type locator struct {
	dec   *json.Decoder
	text  string
	found int
}

// value at the decoder's place, in which the rest of the pointer leads on.
func (l *locator) value(rest []string) {
	at := int(l.dec.InputOffset())
	for at < len(l.text) && strings.IndexByte(" \t\r\n,:", l.text[at]) >= 0 {
		at++
	}
	l.found = at
	if len(rest) == 0 {
		return
	}
	token, err := l.dec.Token()
	if err != nil {
		return
	}
	switch token {
	case json.Delim('{'):
		for l.dec.More() {
			name, err := l.dec.Token()
			if err != nil {
				return
			}
			if name == rest[0] {
				l.value(rest[1:])
				return
			}
			if !l.skip() {
				return
			}
		}
	case json.Delim('['):
		for i := 0; l.dec.More(); i++ {
			if strconv.Itoa(i) == rest[0] {
				l.value(rest[1:])
				return
			}
			if !l.skip() {
				return
			}
		}
	}
}

func (l *locator) skip() bool {
	var v json.RawMessage
	return l.dec.Decode(&v) == nil
}
