package files

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/folder"
)

func open(t *testing.T, dir, write string) sdk.Operation {
	t.Helper()
	s, err := NewSink(fakes.Runtime(t, config(dir, ""), &fakes.Secrets{}, nil), json.RawMessage(`{"volume":{"claimName":"court"},"write":`+write+`}`))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	op, err := s.Operation(nil)
	if err != nil {
		t.Fatal(err)
	}
	return op
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		out[name] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPathsStayWithinTheVolume(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	op := open(t, dir, `{"file":{"path":"{data.a}/{data.b}"}}`)
	for _, c := range []struct{ a, b, want string }{
		{"..", "x", "%2E./x"}, {"a/b", "../c", "a%2Fb/%2E.%2Fc"}, {"a", ".metip", "a/%2Emetip"}, {"ä b", "100%", "ä b/100%25"},
		{"a", "", ""}, {"a", strings.Repeat("x", 256), ""}, {"link", "x", ""}, {"a", "n\x00", "a/n%00"},
	} {
		body, err := json.Marshal(map[string]string{"a": c.a, "b": c.b})
		if err != nil {
			t.Fatal(err)
		}
		err = op.Write(t.Context(), []*sdk.Delivery{fakes.Delivery("1", string(body))})[0]
		switch {
		case c.want == "" && !sdk.IsPermanent(err):
			t.Errorf("%q/%q: %v", c.a, c.b, err)
		case c.want != "" && (err != nil || !exists(dir, c.want)):
			t.Errorf("%q/%q: %v, %v", c.a, c.b, err, contents(t, dir))
		}
	}
	if left := contents(t, outside); len(left) != 0 {
		t.Errorf("outside the volume there is %v", left)
	}
	for _, path := range []string{"/a", "a/", ""} {
		if _, err := folder.CompilePath(path); err == nil {
			t.Errorf("%q is taken", path)
		}
	}
}

func TestAFileThatIsThere(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"1": "old"})
	reject := open(t, dir, `{"file":{"path":"{data.id}","exists":"Reject"}}`)
	results := reject.Write(t.Context(), []*sdk.Delivery{fakes.Delivery("1", `{"id":"1"}`), fakes.Delivery("2", `{"id":"2"}`), fakes.Delivery("2", `{"id":"2"}`)})
	if !sdk.IsPermanent(results[0]) || results[1] != nil || results[2] != nil {
		t.Error(results)
	}
	replace := open(t, dir, `{"file":{"path":"{data.id}"}}`)
	if err := replace.Write(t.Context(), []*sdk.Delivery{fakes.Delivery("1", `{"id":"1"}`)})[0]; err != nil {
		t.Error(err)
	}
	if d := cmp.Diff(map[string]string{"1": `{"id":"1"}`, "2": `{"id":"2"}`}, contents(t, dir)); d != "" {
		t.Error(d)
	}
}

func TestAppending(t *testing.T) {
	dir := t.TempDir()
	// What a killed pod has left is cut off.
	write(t, dir, map[string]string{"out/a.jsonl": "{\"id\":0}\n{\"id\":"})
	op := open(t, dir, `{"append":{"path":"out/{data.to}.jsonl"}}`)
	results := op.Write(t.Context(), []*sdk.Delivery{
		fakes.Delivery("1", "{\n \"to\": \"a\"}"), fakes.Delivery("2", `{"to":"b"}`), fakes.Delivery("3", `{"to":"a","n":3}`), fakes.Delivery("4", `{}`),
	})
	if results[0] != nil || results[1] != nil || results[2] != nil || !sdk.IsPermanent(results[3]) {
		t.Error(results)
	}
	want := map[string]string{"out/a.jsonl": "{\"id\":0}\n{\"to\":\"a\"}\n{\"to\":\"a\",\"n\":3}\n", "out/b.jsonl": "{\"to\":\"b\"}\n"}
	if d := cmp.Diff(want, contents(t, dir)); d != "" {
		t.Error(d)
	}
	text := fakes.Delivery("5", "two\nlines")
	text.Format = sdk.FormatText
	if err := open(t, dir, `{"append":{"path":"t"}}`).Write(t.Context(), []*sdk.Delivery{text})[0]; !sdk.IsPermanent(err) {
		t.Error(err)
	}
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	op := open(t, dir, `{"append":{"path":"a.log","rotate":{"size":"1Ki","every":"1h"}}}`)
	var batch []*sdk.Delivery
	for range 30 {
		batch = append(batch, fakes.Delivery("1", `{"v":"`+strings.Repeat("x", 90)+`"}`))
	}
	for _, err := range op.Write(t.Context(), batch) {
		if err != nil {
			t.Fatal(err)
		}
	}
	lines := 0
	for name, content := range contents(t, dir) {
		if len(content) > 1024 {
			t.Errorf("%s has %d bytes", name, len(content))
		}
		lines += strings.Count(content, "\n")
	}
	if lines != 30 {
		t.Errorf("%d lines", lines)
	}
	before := len(contents(t, dir))
	appending, ok := op.(*appender)
	if !ok {
		t.Fatal("no appender")
	}
	appending.due(time.Now())
	if !exists(dir, "a.log") {
		t.Error("it is rotated before its time, or the hour has just changed")
	}
	appending.due(time.Now().Add(time.Hour))
	if after := contents(t, dir); len(after) != before || exists(dir, "a.log") {
		t.Errorf("%d files, %d before", len(after), before)
	}
}

func TestAVolumeThatIsNotThere(t *testing.T) {
	op := open(t, filepath.Join(t.TempDir(), "gone"), `{"file":{"path":"{data.id}"}}`)
	err := op.Write(t.Context(), []*sdk.Delivery{fakes.Delivery("1", `{"id":"1"}`)})[0]
	var u *sdk.UnavailableError
	if !errors.As(err, &u) || !strings.Contains(err.Error(), "volume court") {
		t.Error(err)
	}
}
