package steps

import (
	"errors"
	"regexp"
	"strings"
	"sync"
)

// Errors go into logs, events and the headers of dead letters, where whoever may not read the messages reads them: they say what is wrong with
// which field, and never what it holds.

// The expressions are compiled when the first error is made: a pod without one does not pay for them.

// maxErrorText of an error that a library gives.
const maxErrorText = 200

var (
	quoted = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*\"?|`[^`]*`?")
	})
	// loose are the errors of CEL that show a value without quotes.
	loose = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?s)(unknown time zone|timezone offset [^:]*:|unsupported index value|insert failed: key|timestamp overflow:|index out of \w+:|invalid input:|no such key:) .*`)
	})
	// noSuchKey is said of a name of the expression, too.
	noSuchKey = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^no such key: (.*)$`)
	})
)

// discreetCEL is an error of CEL's interpreter without values of the message. expression is the Route's own.
func discreetCEL(err error, expression string) error {
	text := err.Error()
	if m := noSuchKey().FindStringSubmatch(text); m != nil && strings.Contains(expression, m[1]) {
		return shortened(err, text, text)
	}
	return shortened(err, text, loose().ReplaceAllString(quoted().ReplaceAllString(text, `"..."`), "$1 ..."))
}

// discreetJQ is an error of a jq program without the values that gojq shows. What the program says itself, by error and halt_error, stays: its
// author knows whether it may be read.
func discreetJQ(err error) error {
	var said interface{ Value() any }
	if errors.As(err, &said) {
		return shortened(err, err.Error(), err.Error())
	}
	text := err.Error()
	out := strings.Replace(text, `expected "start" and "end"`, "expected start and end", 1)
	if i := strings.IndexAny(out, `("[{`); i >= 0 {
		out = out[:i]
	}
	for _, shows := range []string{"should not be negative:", "too large:", "cannot be applied to"} {
		if i := strings.Index(out, shows); i >= 0 {
			out = out[:i+len(shows)]
		}
	}
	return shortened(err, text, strings.TrimRight(out, " :"))
}

func shortened(err error, was, text string) error {
	if len(text) > maxErrorText {
		text = strings.ToValidUTF8(text[:maxErrorText], "") + "..."
	}
	if text == was {
		return err
	}
	return errors.New(text)
}
