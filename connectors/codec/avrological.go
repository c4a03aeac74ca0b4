package codec

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/avro"
)

// avroLogical is what a value means, where JSON says it otherwise than by the bare type.
type avroLogical uint8

const (
	logicalNone avroLogical = iota
	logicalDecimal
	logicalDate
	logicalTimeMillis
	logicalTimeMicros
	logicalMillis
	logicalMicros
	logicalNanos
	logicalLocalMillis
	logicalLocalMicros
	logicalLocalNanos
	logicalUUID
)

func logicalOf(k avroKind, n *avro.SchemaNode) avroLogical {
	switch k {
	case avroInt:
		return map[string]avroLogical{"date": logicalDate, "time-millis": logicalTimeMillis}[n.LogicalType]
	case avroLong:
		return map[string]avroLogical{
			"time-micros": logicalTimeMicros, "timestamp-millis": logicalMillis, "timestamp-micros": logicalMicros, "timestamp-nanos": logicalNanos,
			"local-timestamp-millis": logicalLocalMillis, "local-timestamp-micros": logicalLocalMicros, "local-timestamp-nanos": logicalLocalNanos,
		}[n.LogicalType]
	case avroBytes, avroFixed:
		if n.LogicalType == "decimal" && n.Precision > 0 {
			return logicalDecimal
		}
		if n.LogicalType == "uuid" && n.Size == 16 {
			return logicalUUID
		}
	}
	return logicalNone
}

// clock of a logical type: its layout in Go's terms, and how many of its units a second has; false for those that are no time.
func (l avroLogical) clock() (layout string, perSecond int64, ok bool) {
	switch l {
	case logicalMillis:
		return "2006-01-02T15:04:05.000Z07:00", 1e3, true
	case logicalMicros:
		return "2006-01-02T15:04:05.000000Z07:00", 1e6, true
	case logicalNanos:
		return "2006-01-02T15:04:05.000000000Z07:00", 1e9, true
	case logicalLocalMillis:
		return "2006-01-02T15:04:05.000", 1e3, true
	case logicalLocalMicros:
		return "2006-01-02T15:04:05.000000", 1e6, true
	case logicalLocalNanos:
		return "2006-01-02T15:04:05.000000000", 1e9, true
	case logicalTimeMillis:
		return "15:04:05.000", 1e3, true
	case logicalTimeMicros:
		return "15:04:05.000000", 1e6, true
	}
	return "", 0, false
}

const secondsPerDay = 24 * 60 * 60

// appendTime writes a time as text, or as the number that it is where no calendar reaches.
func (l avroLogical) appendTime(out []byte, v int64) []byte {
	if l == logicalDate {
		if t := time.Unix(v*secondsPerDay, 0).UTC(); v > -1e7 && v < 1e7 && t.Year() >= 1 && t.Year() <= 9999 {
			return append(t.AppendFormat(append(out, '"'), time.DateOnly), '"')
		}
		return strconv.AppendInt(out, v, 10)
	}
	layout, per, _ := l.clock()
	seconds, rest := v/per, v%per
	if rest < 0 {
		seconds, rest = seconds-1, rest+per
	}
	t := time.Unix(seconds, rest*(1e9/per)).UTC()
	ofDay := l == logicalTimeMillis || l == logicalTimeMicros
	if ofDay && (v < 0 || v >= secondsPerDay*per) || seconds > 1e12 || seconds < -1e12 || t.Year() < 1 || t.Year() > 9999 {
		return strconv.AppendInt(out, v, 10)
	}
	return append(t.AppendFormat(append(out, '"'), layout), '"')
}

// parseTime reads what appendTime writes, and any time of RFC 3339 that the type can hold exactly.
func (l avroLogical) parseTime(text string) (int64, error) {
	if l == logicalDate {
		t, err := time.Parse(time.DateOnly, text)
		if err != nil {
			return 0, fmt.Errorf("is no date: write 2006-01-02")
		}
		return t.Unix() / secondsPerDay, nil
	}
	layout, per, _ := l.clock()
	layout = strings.Replace(layout, "."+strings.Repeat("0", len(strconv.FormatInt(per, 10))-1), "", 1)
	t, err := time.Parse(layout, text) // which takes fractions of a second wherever they may be
	if err != nil {
		return 0, fmt.Errorf("is no time: write %s", layout)
	}
	nanos := int64(t.Nanosecond())
	if nanos%(1e9/per) != 0 {
		return 0, fmt.Errorf("has a finer time than the type")
	}
	seconds := t.Unix()
	if l == logicalTimeMillis || l == logicalTimeMicros {
		seconds = int64(t.Hour()*3600 + t.Minute()*60 + t.Second())
	}
	v := new(big.Int).Mul(big.NewInt(seconds), big.NewInt(per))
	if v.Add(v, big.NewInt(nanos/(1e9/per))); !v.IsInt64() {
		return 0, fmt.Errorf("is beyond what the type holds")
	}
	return v.Int64(), nil
}

// unscaled bytes of a decimal: two's complement, highest byte first; size is that of a fixed type, or 0.
func unscaled(text string, precision, scale, size int) ([]byte, error) {
	digits, fraction, _ := strings.Cut(strings.TrimPrefix(text, "-"), ".")
	fraction = strings.TrimRight(fraction, "0")
	if strings.ContainsAny(text, "eE") || len(fraction) > scale || len(digits) > precision+1 {
		return nil, fmt.Errorf("is no decimal of %d digits, %d of them after the point", precision, scale)
	}
	digits = strings.TrimLeft(digits+fraction+strings.Repeat("0", scale-len(fraction)), "0")
	if len(digits) > precision {
		return nil, fmt.Errorf("is no decimal of %d digits, %d of them after the point", precision, scale)
	}
	v, ok := new(big.Int).SetString("0"+digits, 10)
	if !ok {
		return nil, fmt.Errorf("is no decimal")
	}
	negative := strings.HasPrefix(text, "-") && v.Sign() != 0
	length := v.BitLen()/8 + 1
	if negative {
		// -2^n needs a bit less than 2^n.
		length = new(big.Int).Sub(v, big.NewInt(1)).BitLen()/8 + 1
	}
	if size > 0 {
		if length > size {
			return nil, fmt.Errorf("needs more than the %d bytes of the type", size)
		}
		length = size
	}
	if negative {
		v.Sub(new(big.Int).Lsh(big.NewInt(1), uint(8*length)), v)
	}
	return v.FillBytes(make([]byte, length)), nil
}

// appendDecimal writes a decimal with all digits of its scale.
func appendDecimal(out, raw []byte, scale int) []byte {
	v := new(big.Int).SetBytes(raw)
	if len(raw) > 0 && raw[0] >= 0x80 {
		v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(8*len(raw))))
	}
	if v.Sign() < 0 {
		out = append(out, '-')
		v.Neg(v)
	}
	digits := v.String()
	if scale == 0 {
		return append(out, digits...)
	}
	if len(digits) <= scale {
		digits = strings.Repeat("0", scale-len(digits)+1) + digits
	}
	return append(append(append(out, digits[:len(digits)-scale]...), '.'), digits[len(digits)-scale:]...)
}
