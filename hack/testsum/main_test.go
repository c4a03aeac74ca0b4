package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCountEvents(t *testing.T) {
	cases := map[string]struct {
		events string
		want   string
	}{
		"leaves count, their parents do not": {
			`{"Action":"run","Package":"p","Test":"A"}
			{"Action":"run","Package":"p","Test":"A/x"}
			{"Action":"run","Package":"p","Test":"A/y"}
			{"Action":"pass","Package":"p","Test":"A/x"}
			{"Action":"skip","Package":"p","Test":"A/y"}
			{"Action":"pass","Package":"p","Test":"A"}
			{"Action":"pass","Package":"p"}`,
			"1 passed, 0 failed, 1 skipped",
		},
		"specs count, the function that runs them does not": {
			`{"Action":"run","Package":"p","Test":"TestAPI"}
			{"Action":"output","Package":"p","Test":"TestAPI","Output":"\u001b[1mFAIL!\u001b[0m -- \u001b[1m7 Passed\u001b[0m | 2 Failed | 1 Pending | 3 Skipped\n"}
			{"Action":"fail","Package":"p","Test":"TestAPI"}
			{"Action":"fail","Package":"p"}`,
			"7 passed, 2 failed, 4 skipped",
		},
		"a failed spec that is a subtest too counts once": {
			`{"Action":"run","Package":"p","Test":"TestAPI"}
			{"Action":"output","Package":"p","Test":"TestAPI","Output":"FAIL! -- 7 Passed | 1 Failed | 0 Pending | 0 Skipped\n"}
			{"Action":"run","Package":"p","Test":"TestAPI/A_Route_routes"}
			{"Action":"fail","Package":"p","Test":"TestAPI/A_Route_routes"}
			{"Action":"fail","Package":"p","Test":"TestAPI"}
			{"Action":"fail","Package":"p"}`,
			"7 passed, 1 failed, 0 skipped",
		},
		"a suite that fails after its specs is a failure": {
			`{"Action":"run","Package":"p","Test":"TestAPI"}
			{"Action":"output","Package":"p","Test":"TestAPI","Output":"SUCCESS! -- 7 Passed | 0 Failed | 0 Pending | 0 Skipped\n"}
			{"Action":"fail","Package":"p","Test":"TestAPI"}
			{"Action":"fail","Package":"p"}`,
			"7 passed, 1 failed, 0 skipped",
		},
		"a slash in a subtest's own name makes no test": {
			`{"Action":"run","Package":"p","Test":"A"}
			{"Action":"run","Package":"p","Test":"A/hack/tools"}
			{"Action":"pass","Package":"p","Test":"A/hack/tools"}
			{"Action":"pass","Package":"p","Test":"A"}
			{"Action":"pass","Package":"p"}`,
			"1 passed, 0 failed, 0 skipped",
		},
		"a package that does not build is a failure": {
			`{"Action":"build-fail","ImportPath":"p [p.test]"}
			{"Action":"fail","Package":"p"}`,
			"0 passed, 1 failed, 0 skipped",
		},
		"a test that never ended is a failure": {
			`{"Action":"run","Package":"p","Test":"A"}
			{"Action":"fail","Package":"p"}`,
			"0 passed, 1 failed, 0 skipped",
		},
		"a parent that fails by itself is a failure": {
			`{"Action":"run","Package":"p","Test":"A"}
			{"Action":"run","Package":"p","Test":"A/x"}
			{"Action":"pass","Package":"p","Test":"A/x"}
			{"Action":"fail","Package":"p","Test":"A"}
			{"Action":"fail","Package":"p"}`,
			"1 passed, 1 failed, 0 skipped",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := countEvents(strings.NewReader(c.events))
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestReport(t *testing.T) {
	folder := t.TempDir()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("unit.json", `{"Action":"run","Package":"p","Test":"A"}`+"\n"+`{"Action":"pass","Package":"p","Test":"A"}`+"\n")
	write("empty.json", "")

	var out bytes.Buffer
	if total, ok := report(&out, folder, []string{"unit"}); !ok || total.String() != "1 passed, 0 failed, 0 skipped" {
		t.Errorf("one good suite: got %s, ok %t", total, ok)
	}
	if total, ok := report(&out, folder, []string{"unit", "empty", "missing"}); ok || total.failed != 2 {
		t.Errorf("an empty and a missing suite: got %s, ok %t; want 2 failed", total, ok)
	}
}
