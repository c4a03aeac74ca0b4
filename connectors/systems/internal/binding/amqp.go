package binding

import (
	"strconv"
	"strings"
	"time"
)

// Headers of CloudEvents, as their AMQP binding names them; of the two prefixes it allows the first is sent, and both are understood.
const (
	AMQPPrefix      = "cloudEvents:"
	amqpPrefixOther = "cloudEvents_"
)

// AMQPAttribute is the name of the CloudEvents attribute that a header carries.
func AMQPAttribute(header string) (name string, ok bool) {
	if len(header) > len(AMQPPrefix) && (strings.HasPrefix(header, AMQPPrefix) || strings.HasPrefix(header, amqpPrefixOther)) {
		return header[len(AMQPPrefix):], true
	}
	return "", false
}

// Text of a header's value; tables, arrays and bytes have none.
func Text(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case int:
		return strconv.Itoa(v), true
	case int8:
		return strconv.FormatInt(int64(v), 10), true
	case byte:
		return strconv.FormatUint(uint64(v), 10), true
	case int16:
		return strconv.FormatInt(int64(v), 10), true
	case uint16:
		return strconv.FormatUint(uint64(v), 10), true
	case int32:
		return strconv.FormatInt(int64(v), 10), true
	case uint32:
		return strconv.FormatUint(uint64(v), 10), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case uint64:
		return strconv.FormatUint(v, 10), true
	case float32:
		return strconv.FormatFloat(float64(v), 'g', -1, 32), true
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), true
	case time.Time:
		return v.UTC().Format(time.RFC3339), true
	}
	return "", false
}
