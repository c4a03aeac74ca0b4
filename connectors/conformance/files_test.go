package conformance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// fileVolume is a volume with a folder in.
type fileVolume struct{ dir, in string }

func newFileVolume(t *testing.T) fileVolume {
	t.Helper()
	e := fileVolume{dir: t.TempDir()}
	e.in = filepath.Join(e.dir, "in")
	e.restore(t)
	return e
}

func (e fileVolume) restore(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll(e.in, 0o750); err != nil {
		t.Fatal(err)
	}
}

func (e fileVolume) remove(t *testing.T) {
	t.Helper()
	gone, err := os.MkdirTemp(e.dir, "gone-")
	if err == nil {
		err = os.Rename(e.in, filepath.Join(gone, "in")) // at once, whatever is being written there
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (e fileVolume) config() contract.Config {
	return contract.Config{Volume: &contract.Volume{Dir: e.dir, Claim: "court-exchange"}}
}

// put a file as those do who rename it when it is complete.
func (e fileVolume) put(t *testing.T, name string, content []byte) {
	t.Helper()
	temporary := filepath.Join(e.in, name+".tmp")
	if err := os.WriteFile(temporary, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temporary, filepath.Join(e.in, name)); err != nil {
		t.Fatal(err)
	}
}

// files that are left in the folder, each with what of it was not read.
func (e fileVolume) files(t *testing.T) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(e.in)
	if err != nil {
		t.Fatal(err)
	}
	var note struct {
		Name   string
		Offset int
	}
	raw, err := os.ReadFile(filepath.Join(e.in, ".metip", "read-uid"))
	if err == nil {
		err = json.Unmarshal(raw, &note)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, entry := range entries {
		if entry.IsDir() {
			continue
		}
		content, err := os.ReadFile(filepath.Join(e.in, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if "in/"+entry.Name() == note.Name {
			content = content[note.Offset:]
		}
		files[entry.Name()] = content
	}
	return files
}

func record(i, size int) string { return fmt.Sprintf(`{"id":%d,"v":%q}`, i, strings.Repeat("x", size)) }

func newFilesSource(t *testing.T, records string) (*PullHarness, fileVolume) {
	t.Helper()
	e := newFileVolume(t)
	h := &PullHarness{
		System:  "files",
		Options: json.RawMessage(`{"volume":{"claimName":"court-exchange"},"folder":"in","stableFor":"0s","rescanEvery":"1s","records":` + records + `}`),
		Config:  e.config(), Endpoint: "volume court-exchange /in", Object: "in", Window: 512, Ordered: true,
		Remove: e.remove, Restore: e.restore,
	}
	return h, e
}

func newWholeFiles(t *testing.T) *PullHarness {
	t.Helper()
	h, e := newFilesSource(t, `{"whole":{"maxSize":"8Mi"}}`)
	h.Put = func(t *testing.T, from, to, size int) {
		t.Helper()
		for i := from; i < to; i++ {
			e.put(t, fmt.Sprintf("%06d.json", i), []byte(record(i, size)))
		}
	}
	h.Left = func(t *testing.T) int { t.Helper(); return len(e.files(t)) }
	h.Mapped = func(t *testing.T, i int) func(*testing.T, *sdk.Message) {
		t.Helper()
		e.put(t, "mapped.json", []byte(record(i, 10)))
		return func(t *testing.T, m *sdk.Message) {
			t.Helper()
			if m.Subject != "in/mapped.json" || m.Headers["filename"] != "mapped.json" || m.Headers["fileoffset"] != "0" || m.Time.IsZero() {
				t.Errorf("%+v", m)
			}
		}
	}
	return h
}

func newLines(t *testing.T) *PullHarness {
	t.Helper()
	h, e := newFilesSource(t, `{"lines":{}}`)
	h.Put = func(t *testing.T, from, to, size int) {
		t.Helper()
		var content bytes.Buffer
		for i := from; i < to; i++ {
			fmt.Fprintln(&content, record(i, size))
		}
		e.put(t, fmt.Sprintf("%06d.jsonl", from), content.Bytes())
	}
	h.Left = func(t *testing.T) int {
		t.Helper()
		left := 0
		for _, content := range e.files(t) {
			left += bytes.Count(content, []byte("\n"))
		}
		return left
	}
	return h
}

func TestFilesSourceWhole(t *testing.T) { PullSources(t, newWholeFiles) }

func TestFilesSourceLines(t *testing.T) { PullSources(t, newLines) }

// newElements is documents whose elements are records; JSON says all values as texts.
func newElements(t *testing.T) *PullHarness {
	t.Helper()
	h, e := newFilesSource(t, `{"xml":{"element":"record"}}`)
	h.Put = func(t *testing.T, from, to, size int) {
		t.Helper()
		content := []byte("<export>")
		for i := from; i < to; i++ {
			content = fmt.Appendf(content, "\n<record><id>%d</id><v>%s</v></record>", i, strings.Repeat("x", size))
		}
		e.put(t, fmt.Sprintf("%06d.xml", from), append(content, "\n</export>\n"...))
	}
	h.Number = func(m *sdk.Message) (int, error) {
		var body struct{ Record struct{ ID string } }
		if err := json.Unmarshal(m.Data, &body); err != nil {
			return 0, err
		}
		return strconv.Atoi(body.Record.ID)
	}
	h.Left = func(t *testing.T) int {
		t.Helper()
		left := 0
		for _, content := range e.files(t) {
			left += bytes.Count(content, []byte("<record>"))
		}
		return left
	}
	return h
}

func TestFilesSourceElements(t *testing.T) { PullSources(t, newElements) }

func newFilesSink(t *testing.T, write map[string]any) (*SinkHarness, fileVolume) {
	t.Helper()
	e := newFileVolume(t)
	away := e.dir + "-away"
	move := func(from, to string) func(*testing.T) {
		return func(t *testing.T) {
			t.Helper()
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
		}
	}
	return &SinkHarness{
		System: "files", Options: fakes.JSON(t, map[string]any{"volume": map[string]any{"claimName": "court-exchange"}, "write": write}),
		Config: e.config(), Endpoint: "volume court-exchange", Good: message,
		Poison: func(i int) *sdk.Delivery { return fakes.Delivery(fmt.Sprint(i), `{"v":"without id"}`) },
		Remove: move(e.dir, away), Restore: move(away, e.dir),
	}, e
}

func newOneFile(t *testing.T) *SinkHarness {
	t.Helper()
	h, e := newFilesSink(t, map[string]any{"file": map[string]any{"path": "out/{data.id}.json"}})
	h.Effects = func(t *testing.T) map[int]int {
		t.Helper()
		paths, err := filepath.Glob(filepath.Join(e.dir, "out", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return countIDs(t, paths)
	}
	return h
}

// countIDs of the JSON lines in files.
func countIDs(t *testing.T, paths []string) map[int]int {
	t.Helper()
	ids := map[int]int{}
	for _, p := range paths {
		content, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(content) {
			var body struct{ ID int }
			if err := json.Unmarshal(line, &body); err != nil {
				t.Fatal(err)
			}
			ids[body.ID]++
		}
	}
	return ids
}

func newAppended(t *testing.T) *SinkHarness {
	t.Helper()
	h, e := newFilesSink(t, map[string]any{"append": map[string]any{"path": "out/all-{string(data.id).size() > 0 ? 'x' : ''}.jsonl", "rotate": map[string]any{"size": "64Ki"}}})
	h.AtLeastOnce = true
	h.Effects = func(t *testing.T) map[int]int {
		t.Helper()
		paths, err := filepath.Glob(filepath.Join(e.dir, "out", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return countIDs(t, paths)
	}
	h.Identities = func(t *testing.T) map[int]int {
		t.Helper()
		ids := map[int]int{}
		for id := range h.Effects(t) {
			ids[id] = 1
		}
		return ids
	}
	return h
}

func TestFilesSinkFile(t *testing.T) { Sinks(t, newOneFile) }

func TestFilesSinkAppend(t *testing.T) { Sinks(t, newAppended) }
