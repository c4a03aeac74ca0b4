// Package record makes the messages of the bench: JSON of Size bytes that carries its number, which is read without parsing. The bench and the
// processes that it measures use it.
package record

import "strconv"

// Bodies begin with Prefix and Digits digits.
const (
	Size   = 1024
	Prefix = `{"n":1`
	Digits = 11
)

// Filter lets every body pass, and is an expression that has to look at it.
const Filter = "data.n >= 100000000000"

// Body with a number.
func Body(n int) []byte {
	body := make([]byte, 0, Size)
	body = append(body, Prefix...)
	digits := strconv.Itoa(n)
	for range Digits - len(digits) {
		body = append(body, '0')
	}
	body = append(body, digits...)
	body = append(body, `,"pad":"`...)
	for len(body) < Size-2 {
		body = append(body, byte('a'+len(body)%26))
	}
	return append(body, `"}`...)
}

// Number of a body; -1 when it is none of ours.
func Number(body []byte) int {
	if len(body) < len(Prefix)+Digits || string(body[:len(Prefix)]) != Prefix {
		return -1
	}
	n, err := strconv.Atoi(string(body[len(Prefix) : len(Prefix)+Digits]))
	if err != nil {
		return -1
	}
	return n
}

// SetNumber of a body that Body has made.
func SetNumber(body []byte, n int) {
	for i := len(Prefix) + Digits - 1; i >= len(Prefix); i-- {
		body[i] = byte('0' + n%10)
		n /= 10
	}
}
