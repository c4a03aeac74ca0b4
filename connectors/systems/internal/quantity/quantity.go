package quantity

import (
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// Quantity is a whole number, rounded up.
type Quantity int64

var suffixes = []struct {
	suffix string
	factor int64
}{{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}}

// UnmarshalJSON reads a string or a number.
func (q *Quantity) UnmarshalJSON(b []byte) error {
	text := strings.Trim(string(b), `"`)
	n, err := Parse(text)
	if err != nil {
		return fmt.Errorf("quantity %q: %w", text, err)
	}
	*q = Quantity(n)
	return nil
}

// Parse a quantity.
func Parse(text string) (int64, error) {
	if len(text) > 32 {
		return 0, errors.New("too long")
	}
	factor := big.NewRat(1, 1)
	for _, s := range suffixes {
		if rest, ok := strings.CutSuffix(text, s.suffix); ok {
			text, factor = rest, big.NewRat(s.factor, 1)
			break
		}
	}
	if rest, ok := strings.CutSuffix(text, "m"); ok {
		text, factor = rest, big.NewRat(1, 1000)
	}
	if i := strings.IndexAny(text, "eE"); i >= 0 && len(text)-i > 4 {
		return 0, errors.New("the exponent is too large")
	}
	if strings.Trim(text, "+-0123456789.eE") != "" {
		return 0, errors.New("not a number with a suffix such as Ki or Mi")
	}
	n, ok := new(big.Rat).SetString(text)
	if !ok {
		return 0, errors.New("not a number")
	}
	n.Mul(n, factor)
	up := new(big.Int).Add(n.Num(), new(big.Int).Sub(n.Denom(), big.NewInt(1)))
	up.Div(up, n.Denom())
	if !up.IsInt64() {
		return 0, errors.New("out of range")
	}
	return up.Int64(), nil
}
