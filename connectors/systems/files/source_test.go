package files

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/folder"
)

const within = 60 * time.Second

func config(dir, format string) *contract.Config {
	return &contract.Config{Volume: &contract.Volume{Dir: dir, Claim: "court"}, Source: &contract.Source{Format: format}}
}

// start a source on a volume, until the returned function is called.
func start(t *testing.T, dir, format, options string, bus sdk.Publisher) (*fakes.Reporter, func()) {
	t.Helper()
	s, err := NewSource(fakes.Runtime(t, config(dir, format), &fakes.Secrets{}, nil), json.RawMessage(options))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	state := &fakes.Reporter{}
	go func() { done <- s.Run(ctx, bus, state) }()
	stop := func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		done <- nil
	}
	t.Cleanup(stop)
	return state, stop
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func exists(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name))
	return err == nil
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	fakes.Eventually(t, within, what, f)
}

func bodies(bus *fakes.Publisher) []string {
	var out []string
	for _, m := range bus.Stored() {
		out = append(out, string(m.Data))
	}
	return out
}

const fast = `"volume":{"claimName":"court"},"folder":"in","stableFor":"0s","rescanEvery":"1s"`

func TestTablesBecomeMessages(t *testing.T) {
	dir, bus := t.TempDir(), &fakes.Publisher{}
	write(t, dir, map[string]string{
		"in/a.csv": "id;name\r\n1;M\xfcller\r\n\r\n2;\"a;\nb\"\r\n", "in/b.csv": "name;id\nNg;3", "in/c.txt": "no", "in/.d.csv": "hidden", "in/e.csv.part": "no",
	})
	if err := os.Symlink("a.csv", filepath.Join(dir, "in/link.csv")); err != nil {
		t.Fatal(err)
	}
	start(t, dir, sdk.FormatJSON, `{`+fast+`,"pattern":"*.csv*","charset":"windows-1252","records":{"csv":{"delimiter":";","columns":["id"]}}}`, bus)
	eventually(t, "the files are done", func() bool { return exists(dir, "in/done/a.csv") && exists(dir, "in/done/b.csv") })
	want := []string{`{"id":"1","name":"Müller"}`, `{"id":"2","name":"a;\nb"}`, `{"name":"Ng","id":"3"}`}
	if d := cmp.Diff(want, bodies(bus)); d != "" {
		t.Error(d)
	}
	for _, name := range []string{"in/c.txt", "in/.d.csv", "in/e.csv.part", "in/link.csv"} {
		if !exists(dir, name) {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestAFileThatCannotBeTakenInFailsAlone(t *testing.T) {
	dir, bus := t.TempDir(), &fakes.Publisher{}
	write(t, dir, map[string]string{"in/1": "{\"a\":1}\n{\"a\":\n{\"a\":3}\n", "in/2": "{\"b\":1}\n", "in/failed/1": "an older one"})
	start(t, dir, sdk.FormatJSON, `{`+fast+`,"records":{"lines":{}}}`, bus)
	eventually(t, "the second file is done", func() bool { return exists(dir, "in/done/2") })
	if d := cmp.Diff([]string{`{"a":1}`, `{"b":1}`}, bodies(bus)); d != "" {
		t.Error(d)
	}
	why, err := os.ReadFile(filepath.Join(dir, "in/failed/1.error"))
	if err != nil || !strings.Contains(string(why), "begins at byte 8") {
		t.Errorf("%s %v", why, err)
	}
	failed, err := filepath.Glob(filepath.Join(dir, "in/failed/1*"))
	if err != nil || len(failed) != 3 || exists(dir, "in/1") {
		t.Errorf("%v %v", failed, err)
	}
}

func TestAFolderThatGoesIsNotMadeAgain(t *testing.T) {
	const records = folder.MaxBatch + 1 // so that the source takes a note between
	dir, bus := t.TempDir(), &fakes.Publisher{}
	write(t, dir, map[string]string{"in/a": strings.Repeat("{}\n", records), "kept/b": ""})
	release := bus.Hold()
	state, _ := start(t, dir, sdk.FormatJSON, `{`+fast+`,"doneFolder":"kept/done/2026","records":{"lines":{}}}`, bus)
	eventually(t, "messages are being published", func() bool { n, _ := bus.Waiting(); return n > 0 })
	if err := os.Rename(filepath.Join(dir, "in"), filepath.Join(dir, "gone")); err != nil {
		t.Fatal(err)
	}
	release()
	eventually(t, "the source is down", func() bool { err, _ := state.State(); return err != nil })
	if exists(dir, "in") {
		t.Fatal("the folder was made again, and nobody hears that it had gone")
	}
	if err := os.Rename(filepath.Join(dir, "gone"), filepath.Join(dir, "in")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the file is done", func() bool { return exists(dir, "kept/done/2026/a") })
	eventually(t, "the source is up", func() bool { err, _ := state.State(); return err == nil })
	if got := len(bodies(bus)); got != records {
		t.Errorf("%d messages, want %d", got, records)
	}
}

func TestWhatIsNotCompleteIsLeftAlone(t *testing.T) {
	dir, bus := t.TempDir(), &fakes.Publisher{}
	write(t, dir, map[string]string{"in/locked": "1", "in/locked.lock": "", "in/growing": "{", "in/ready": "2"})
	start(t, dir, sdk.FormatJSON, `{`+strings.Replace(fast, "0s", "1s", 1)+`,"lockSuffix":".lock","records":{"whole":{}}}`, bus)
	deadline := time.Now().Add(2500 * time.Millisecond) // longer than what is stable has to be
	for grown := 0; time.Now().Before(deadline); grown++ {
		write(t, dir, map[string]string{"in/growing": "{" + strings.Repeat(" ", grown)})
		time.Sleep(50 * time.Millisecond) // a writer takes its time
	}
	if exists(dir, "in/failed/growing") && exists(dir, "in/done/growing") {
		t.Error("a file that grew was taken")
	}
	write(t, dir, map[string]string{"in/growing": `{"a":1}`})
	eventually(t, "the complete ones are taken", func() bool { return exists(dir, "in/done/ready") && exists(dir, "in/done/growing") })
	if !exists(dir, "in/locked") {
		t.Error("a locked file was taken")
	}
	if err := os.Remove(filepath.Join(dir, "in/locked.lock")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lock has gone", func() bool { return exists(dir, "in/done/locked") })
}

func TestTheOldestComesFirst(t *testing.T) {
	dir, bus := t.TempDir(), &fakes.Publisher{}
	now := time.Now()
	for i, name := range []string{"c", "a", "b"} {
		write(t, dir, map[string]string{"in/" + name: fmt.Sprint(i)})
		if err := os.Chtimes(filepath.Join(dir, "in", name), now, now.Add(time.Duration(i-9)*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	start(t, dir, sdk.FormatJSON, `{`+fast+`,"order":"Time","done":"Delete","records":{"whole":{}}}`, bus)
	eventually(t, "they are taken in", func() bool { return len(bus.Stored()) == 3 })
	if d := cmp.Diff([]string{"0", "1", "2"}, bodies(bus)); d != "" {
		t.Error(d)
	}
	eventually(t, "they are deleted", func() bool { return !exists(dir, "in/a") && !exists(dir, "in/b") && !exists(dir, "in/c") })
}

func TestAFileIsResumedInItsMiddle(t *testing.T) {
	dir, bus := t.TempDir(), &fakes.Publisher{}
	var content strings.Builder
	content.WriteString("id,v\n")
	const rows = 20_000
	for i := range rows {
		fmt.Fprintf(&content, "%d,%s\n", i, strings.Repeat("x", 100))
	}
	options := `{` + fast + `,"records":{"csv":{}}}`
	write(t, dir, map[string]string{"in/b.csv": content.String()})
	_, stop := start(t, dir, sdk.FormatJSON, options, bus)
	eventually(t, "some of it is stored", func() bool { return len(bus.Stored()) > 1000 })
	stop()
	if n := len(bus.Stored()); n == rows {
		t.Skip("the source was too fast to be stopped in the middle")
	}
	write(t, dir, map[string]string{"in/a.csv": "id,v\nlast,\n"}) // comes later, though its name is first
	_, _ = start(t, dir, sdk.FormatJSON, options, bus)
	eventually(t, "all of it is done", func() bool { return exists(dir, "in/done/b.csv") && exists(dir, "in/done/a.csv") })
	stored := bodies(bus)
	if len(stored) != rows+1 || bus.Repeats() != 0 {
		t.Errorf("%d messages, %d came again", len(stored), bus.Repeats())
	}
	for i, body := range stored[:rows] {
		if !strings.HasPrefix(body, fmt.Sprintf(`{"id":"%d"`, i)) {
			t.Fatalf("row %d is %.60s", i, body)
		}
	}
	if left, err := os.ReadDir(filepath.Join(dir, "in/.metip")); err != nil || len(left) != 0 {
		t.Errorf("notes are left: %v %v", left, err)
	}
}

// largeBus notes what it is given as claims.
type largeBus struct {
	fakes.Publisher
	sizes chan int
}

func (b *largeBus) PublishLarge(_ context.Context, _ *sdk.Message, body io.Reader) error {
	buffer, size := make([]byte, 64<<10), 0
	for {
		n, err := body.Read(buffer)
		size += n
		if err != nil {
			b.sizes <- size
			return nil
		}
	}
}

func TestLargeFilesAreCheckedIn(t *testing.T) {
	dir, bus := t.TempDir(), &largeBus{sizes: make(chan int, 1)}
	write(t, dir, map[string]string{"in/a": strings.Repeat("x", contract.MaxMessageSize+1), "in/b": strings.Repeat("x", 10<<20+1)})
	start(t, dir, sdk.FormatBinary, `{`+fast+`,"records":{"whole":{"maxSize":"10Mi"}}}`, bus)
	select {
	case n := <-bus.sizes:
		if n != contract.MaxMessageSize+1 {
			t.Errorf("%d bytes", n)
		}
	case <-time.After(within):
		t.Fatal("it was not checked in")
	}
	eventually(t, "the large one is done, and the larger one failed", func() bool { return exists(dir, "in/done/a") && exists(dir, "in/failed/b.error") })
}

func TestFoldersOutsideTheVolume(t *testing.T) {
	for _, folder := range []string{"..", "/etc", "a/../../b", "a/", "./a"} {
		_, err := NewSource(fakes.Runtime(t, config(t.TempDir(), sdk.FormatJSON), &fakes.Secrets{}, nil),
			json.RawMessage(fmt.Sprintf(`{"volume":{"claimName":"court"},"folder":%q,"records":{"lines":{}}}`, folder)))
		if err == nil {
			t.Errorf("%q is taken", folder)
		}
	}
}

func TestALinkOutOfTheVolume(t *testing.T) {
	dir, outside, bus := t.TempDir(), t.TempDir(), &fakes.Publisher{}
	write(t, outside, map[string]string{"secret": "1"})
	if err := os.Symlink(outside, filepath.Join(dir, "in")); err != nil {
		t.Fatal(err)
	}
	state, _ := start(t, dir, sdk.FormatJSON, `{`+fast+`,"records":{"whole":{}}}`, bus)
	eventually(t, "it is refused", func() bool { err, reported := state.State(); return reported && err != nil })
	if len(bus.Stored()) != 0 || !exists(outside, "secret") {
		t.Error("a file outside the volume was taken")
	}
}
