package steps

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Error says where an expression does not compile. Line and Column count from 1; Column counts characters.
type Error struct {
	Line, Column int
	Message      string
}

func (e *Error) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
}

// ErrLimit is wrapped by what ran out of the time or memory that one message may cost. Unlike every other error of a step it may
// pass by itself: the machine may have been busy.
var ErrLimit = errors.New("the step took too long or too much memory")

// errorAt makes an Error of a byte offset in the text.
func errorAt(text string, offset int, message string) *Error {
	offset = max(0, min(offset, len(text)))
	before := text[:offset]
	line := strings.Count(before, "\n")
	if i := strings.LastIndexByte(before, '\n'); i >= 0 {
		before = before[i+1:]
	}
	return &Error{Line: line + 1, Column: utf8.RuneCountInString(before) + 1, Message: message}
}
