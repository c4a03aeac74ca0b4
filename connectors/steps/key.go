package steps

import (
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/metip/metip/connectors/sdk"
)

// maxKey in bytes.
const maxKey = 256

// Key is a compiled CEL expression that yields a key: what messages have in common whose order is kept. It is safe for concurrent use.
type Key struct{ value *Value }

// CompileKey compiles an expression. An error is an *Error with the position.
func CompileKey(text string) (*Key, error) {
	v, err := CompileValue(text)
	if err != nil {
		return nil, err
	}
	return &Key{v}, nil
}

// Of a message: a text that is not empty, a number or a boolean, as text of at most 256 bytes. ok is false where the expression yields anything else, or fails on
// this message because a field is missing or its body cannot be read.
func (k *Key) Of(m *sdk.Message) (key string, ok bool) {
	defer func() {
		if recover() != nil {
			key, ok = "", false
		}
	}()
	v, err := k.value.Eval(m)
	if err != nil {
		return "", false
	}
	switch v := v.(type) {
	case string:
		return cutKey(v), v != ""
	case bool:
		return strconv.FormatBool(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case uint64:
		return strconv.FormatUint(v, 10), true
	case float64:
		return formatFloat(v), true
	case json.Number:
		return cutKey(string(v)), true
	}
	return "", false
}

// cutKey to what fits a header. Keys that begin alike are one then, which harms no order.
func cutKey(key string) string {
	if len(key) <= maxKey {
		return key
	}
	cut := maxKey
	for cut > 0 && !utf8.RuneStart(key[cut]) {
		cut--
	}
	return key[:cut]
}
