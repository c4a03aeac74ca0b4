package compile

import (
	"slices"
	"strings"
)

// withoutCovered leaves out the subject filters that another one covers, and duplicates: the broker refuses such filters in one
// consumer. Filters that overlap without one covering the other stay: it takes those, and delivers what matches both once.
func withoutCovered(filters []string) []string {
	var out []string
	for i, f := range filters {
		if !slices.ContainsFunc(filters[i+1:], func(other string) bool { return other == f || covers(other, f) }) &&
			!slices.ContainsFunc(filters[:i], func(other string) bool { return other != f && covers(other, f) }) {
			out = append(out, f)
		}
	}
	return out
}

// covers tells whether every subject that matches b matches a.
func covers(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i, t := range x {
		switch {
		case t == ">":
			return len(y) > i
		case i >= len(y) || y[i] == ">":
			return false
		case t != "*" && t != y[i]:
			return false
		}
	}
	return len(x) == len(y)
}
