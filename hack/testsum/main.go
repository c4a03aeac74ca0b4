package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: testsum <folder> <suite>...\nadds up the go test -json events in <folder>/<suite>.json")
		os.Exit(2)
	}
	total, ok := report(os.Stdout, os.Args[1], os.Args[2:])
	fmt.Println(total)
	if !ok {
		os.Exit(1)
	}
}

// report prints a line for each suite and each failure, and returns the sum; ok says that every suite ran and nothing failed.
func report(w io.Writer, folder string, suites []string) (total counts, ok bool) {
	ok = true
	for _, suite := range suites {
		c, err := readSuite(filepath.Join(folder, suite+".json"))
		if err != nil {
			c.failed++
			fmt.Fprintf(w, "%s: no usable results: %v\n", suite, err)
		}
		for _, name := range c.failures {
			fmt.Fprintf(w, "%s: FAILED %s\n", suite, name)
		}
		fmt.Fprintf(w, "%s: %s\n", suite, c)
		ok = ok && c.failed == 0
		total.add(c)
	}
	return total, ok
}

// counts of tests: leaves only, a Ginkgo spec counting as one test and the function that runs the specs as none.
type counts struct {
	passed, failed, skipped int
	failures                []string
}

func (c *counts) add(o counts) {
	c.passed += o.passed
	c.failed += o.failed
	c.skipped += o.skipped
}

func (c counts) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", c.passed, c.failed, c.skipped)
}

func readSuite(path string) (counts, error) {
	f, err := os.Open(path)
	if err != nil {
		return counts{}, err
	}
	defer f.Close()
	c, err := countEvents(f)
	if err == nil && c.passed+c.failed+c.skipped == 0 {
		err = errors.New("no test ran")
	}
	return c, err
}

// event is a line of `go test -json` (go doc test2json).
type event struct {
	Action, Package, ImportPath, Test, Output string
}

type test struct {
	action string
	parent bool
	specs  *counts
}

// specsLine is what Ginkgo prints at the end of a suite: "FAIL! -- 3 Passed | 1 Failed | 0 Pending | 2 Skipped".
var (
	specsLine = regexp.MustCompile(`(\d+) Passed \| (\d+) Failed \| (\d+) Pending \| (\d+) Skipped`)
	colour    = regexp.MustCompile("\x1b\\[[0-9;]*m")
)

// countEvents reads a stream of events. A package that fails with no failed test (it did not build, panicked between tests or
// timed out) counts as one failure.
func countEvents(r io.Reader) (counts, error) {
	tests := map[[2]string]*test{}
	packages := map[string]string{}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if jsonErr := json.Unmarshal(line, &e); jsonErr != nil {
				return counts{}, fmt.Errorf("not an event of go test: %w", jsonErr)
			}
			record(tests, packages, e)
		}
		if errors.Is(err, io.EOF) {
			return sum(tests, packages), nil
		}
		if err != nil {
			return counts{}, err
		}
	}
}

func record(tests map[[2]string]*test, packages map[string]string, e event) {
	if e.Test == "" {
		if e.Action == "pass" || e.Action == "fail" || e.Action == "skip" {
			packages[e.Package] = e.Action
		}
		if e.Action == "build-fail" {
			pkg, _, _ := strings.Cut(e.ImportPath, " ") // "p [p.test]" is p, built for its test
			packages[pkg] = "fail"
		}
		return
	}
	t := entry(tests, e.Package, e.Test)
	switch e.Action {
	case "run":
		// A subtest's own name may hold a slash, so that not every part before one is a test.
		for i, c := range e.Test {
			if p := tests[[2]string{e.Package, e.Test[:i]}]; c == '/' && p != nil {
				p.parent = true
			}
		}
	case "pass", "fail", "skip":
		t.action = e.Action
	case "output":
		if m := specsLine.FindStringSubmatch(colour.ReplaceAllString(e.Output, "")); m != nil {
			t.specs = &counts{passed: number(m[1]), failed: number(m[2]), skipped: number(m[3]) + number(m[4])}
		}
	}
}

func entry(tests map[[2]string]*test, pkg, name string) *test {
	key := [2]string{pkg, name}
	if tests[key] == nil {
		tests[key] = &test{}
	}
	return tests[key]
}

func number(s string) int {
	n, _ := strconv.Atoi(s) // digits, by the expression
	return n
}

// ofSpecs tells whether the test above this one is a suite of specs.
func ofSpecs(tests map[[2]string]*test, key [2]string) bool {
	top, _, below := strings.Cut(key[1], "/")
	parent := tests[[2]string{key[0], top}]
	return below && parent != nil && parent.specs != nil
}

func sum(tests map[[2]string]*test, packages map[string]string) counts {
	var c counts
	failedIn := map[string]bool{}
	for key, t := range tests {
		name := strings.TrimPrefix(key[0]+"."+key[1], "github.com/metip/metip/")
		switch {
		case t.specs != nil:
			c.add(*t.specs)
			if t.action != "pass" && t.specs.failed == 0 {
				c.failed++
			}
		case ofSpecs(tests, key):
			// a spec that failed, which its suite has counted
		case t.parent && t.action != "":
			continue // its subtests count; a failure of its own shows as a failed package
		case t.action == "pass":
			c.passed++
		case t.action == "skip":
			c.skipped++
		default: // failed, or never ended
			c.failed++
		}
		if t.action != "pass" && t.action != "skip" {
			failedIn[key[0]] = true
			c.failures = append(c.failures, name)
		}
	}
	for pkg, action := range packages {
		if action == "fail" && !failedIn[pkg] {
			c.failed++
			c.failures = append(c.failures, pkg)
		}
	}
	return c
}
