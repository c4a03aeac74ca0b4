package http

import (
	"encoding/json"
	"errors"
)

// The functions below walk a JSON document that sdk.CheckFormat has found valid; on another they return errWalk at worst.

var errWalk = errors.New("invalid JSON")

func skipSpace(doc []byte, at int) int {
	for at < len(doc) {
		switch doc[at] {
		case ' ', '\t', '\r', '\n':
			at++
		default:
			return at
		}
	}
	return at
}

// skipValue returns the end of the value that begins at at.
func skipValue(doc []byte, at int) (int, error) {
	depth := 0
	for at < len(doc) {
		switch doc[at] {
		case '"':
			end, err := skipString(doc, at)
			if err != nil || depth == 0 {
				return end, err
			}
			at = end
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return at, nil // the end of a number, true, false or null in an object or array
			}
			if depth--; depth == 0 {
				return at + 1, nil
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return at, nil
			}
		}
		at++
	}
	if depth != 0 {
		return 0, errWalk
	}
	return at, nil
}

func skipString(doc []byte, at int) (int, error) {
	for at++; at < len(doc); at++ {
		switch doc[at] {
		case '\\':
			at++
		case '"':
			return at + 1, nil
		}
	}
	return 0, errWalk
}

// eachMember calls f with every member of the object doc, in order.
func eachMember(doc []byte, f func(name string, value []byte) error) error {
	at := skipSpace(doc, 0)
	if at == len(doc) || doc[at] != '{' {
		return errors.New("it is not a JSON object")
	}
	for at = skipSpace(doc, at+1); at < len(doc) && doc[at] != '}'; {
		end, err := skipString(doc, at)
		if err != nil || doc[at] != '"' {
			return errWalk
		}
		name, err := unquote(doc[at:end])
		if err != nil {
			return err
		}
		if at = skipSpace(doc, end); at == len(doc) || doc[at] != ':' {
			return errWalk
		}
		at = skipSpace(doc, at+1)
		if end, err = skipValue(doc, at); err != nil || end == at {
			return errWalk
		}
		if err := f(name, doc[at:end:end]); err != nil {
			return err
		}
		if at = skipSpace(doc, end); at < len(doc) && doc[at] == ',' {
			at = skipSpace(doc, at+1)
		}
	}
	return nil
}

// eachElement calls f with every element of the array doc, in order.
func eachElement(doc []byte, f func(value []byte) error) error {
	at := skipSpace(doc, 0)
	if at == len(doc) || doc[at] != '[' {
		return errors.New("it is not a JSON array")
	}
	for at = skipSpace(doc, at+1); at < len(doc) && doc[at] != ']'; {
		end, err := skipValue(doc, at)
		if err != nil || end == at {
			return errWalk
		}
		if err := f(doc[at:end:end]); err != nil {
			return err
		}
		if at = skipSpace(doc, end); at < len(doc) && doc[at] == ',' {
			at = skipSpace(doc, at+1)
		}
	}
	return nil
}

// unquote a JSON string.
func unquote(raw []byte) (string, error) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", errWalk
	}
	for _, c := range raw[1 : len(raw)-1] {
		if c == '\\' {
			var s string
			if err := json.Unmarshal(raw, &s); err != nil {
				return "", err
			}
			return s, nil
		}
	}
	return string(raw[1 : len(raw)-1]), nil
}
