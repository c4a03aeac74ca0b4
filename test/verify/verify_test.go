package verify

import (
	"bytes"
	"encoding/json"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const (
	root = "../.."
	// maxCRDSize is what client-side apply bears: it stores the object once more, in an annotation of at most 256 KiB.
	maxCRDSize = 200_000
)

func TestGeneratedFilesAreCurrent(t *testing.T) {
	fresh := t.TempDir()
	run(t, root, "make", "generate", "GENERATE_TO="+fresh)
	for _, path := range filesBelow(t, fresh) {
		want := read(t, filepath.Join(fresh, path))
		got, err := os.ReadFile(filepath.Join(root, path))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not current (%v): run `make generate`", path, err)
		}
	}
	for _, path := range filesBelow(t, filepath.Join(root, "config/crd/bases")) {
		if _, err := os.Stat(filepath.Join(fresh, "config/crd/bases", path)); err != nil {
			t.Errorf("config/crd/bases/%s is no longer generated: delete it", path)
		}
	}
}

func TestModulesAreTidy(t *testing.T) {
	for _, path := range sources(t, "go.mod") {
		t.Run(filepath.ToSlash(filepath.Dir(path)), func(t *testing.T) {
			run(t, filepath.Join(root, filepath.Dir(path)), "go", "mod", "tidy", "-diff")
		})
	}
}

func TestCodeIsFormatted(t *testing.T) {
	if out := run(t, root, "gofmt", append([]string{"-l"}, sources(t, "*.go")...)...); out != "" {
		t.Errorf("run `make fmt`; not formatted:\n%s", out)
	}
}

func TestLint(t *testing.T) {
	run(t, root, "make", "lint")
}

func TestCRDsAreSmallEnoughToApply(t *testing.T) {
	for _, path := range filesBelow(t, filepath.Join(root, "config/crd/bases")) {
		object, err := yaml.YAMLToJSON(read(t, filepath.Join(root, "config/crd/bases", path)))
		if err != nil {
			t.Fatal(err)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, object); err != nil {
			t.Fatal(err)
		}
		if compact.Len() > maxCRDSize {
			t.Errorf("%s has %d bytes as JSON, at most %d can be applied", path, compact.Len(), maxCRDSize)
		}
	}
}

func TestShellScriptsParse(t *testing.T) {
	for _, path := range slices.Concat(sources(t, "*.sh"), []string{".ci/run"}) {
		run(t, root, "bash", "-n", path)
	}
}

func TestEveryPackageIsDocumented(t *testing.T) {
	documented := map[string]bool{}
	for _, path := range sources(t, "*.go") {
		dir := filepath.Dir(path)
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		documented[dir] = documented[dir] || packageComment(t, path)
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment: add a doc.go that says what lives there, what does not, and who calls it", dir)
		}
	}
}

func TestEveryMakeTargetIsInHelp(t *testing.T) {
	help := run(t, root, "make", "help")
	phony := regexp.MustCompile(`(?m)^\.PHONY: ([a-z0-9-]+)$`)
	for _, path := range append(sources(t, "*.mk"), "Makefile") {
		for _, m := range phony.FindAllSubmatch(read(t, filepath.Join(root, path)), -1) {
			target := string(m[1])
			if !strings.Contains(help, "  "+target+" ") {
				t.Errorf("%s: `make help` does not list %s: write `%s: ## What it does.`", path, target, target)
			}
		}
	}
}

func TestLinksOfDocumentsLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]+)(#[^)\s]*)?\)`)
	for _, path := range sources(t, "*.md") {
		if path == "docs/reference/api.md" { // generated: its regular expressions look like links, and its links are within it
			continue
		}
		for _, m := range link.FindAllSubmatch(read(t, filepath.Join(root, path)), -1) {
			target := string(m[1])
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(path), target)); err != nil {
				t.Errorf("%s links to %s, which does not exist", path, target)
			}
		}
	}
}

// sources lists the files of the repository whose name matches the pattern: those that git has or would take.
func sources(t *testing.T, pattern string) []string {
	t.Helper()
	out := run(t, root, "git", "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate", "--", pattern, "**/"+pattern)
	var paths []string
	for path := range strings.Lines(out) {
		path = strings.TrimSpace(path)
		if _, err := os.Stat(filepath.Join(root, path)); err == nil { // not one that is deleted and not committed yet
			paths = append(paths, path)
		}
	}
	if len(paths) == 0 {
		t.Fatalf("no file matches %s", pattern)
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

func filesBelow(t *testing.T, dir string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		relative, err := filepath.Rel(dir, path)
		paths = append(paths, relative)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func packageComment(t *testing.T, path string) bool {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, parser.PackageClauseOnly|parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return file.Doc != nil
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// run runs a command in a folder and returns what it prints; when it fails, so does the test, with what it printed.
func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out.String(), complaint.String())
	}
	return out.String()
}
