package image

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func spec(t *testing.T) Spec {
	t.Helper()
	dir := t.TempDir()
	s := Spec{Name: "localhost/thing:dev", Entrypoint: "/a", Arch: "amd64", Binaries: map[string]string{}}
	for path, content := range map[string]string{"/a": "AAA", "/b": "BBB", "/deep/er/c": "CCC"} {
		file := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		s.Binaries[path] = file
	}
	return s
}

func write(t *testing.T, s Spec) (tarFile, digest string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "sub", "image.tar")
	digest, err := Write(s, out)
	if err != nil {
		t.Fatal(err)
	}
	return out, digest
}

func TestTheSameInputGivesTheSameFile(t *testing.T) {
	s := spec(t)
	first, digest := write(t, s)
	old := time.Now().Add(-time.Hour)
	for _, file := range s.Binaries {
		if err := os.Chtimes(file, old, old); err != nil {
			t.Fatal(err)
		}
	}
	second, again := write(t, s)
	if digest != again {
		t.Errorf("digests differ: %s, %s", digest, again)
	}
	a, _ := os.ReadFile(first)
	b, _ := os.ReadFile(second)
	if len(a) == 0 || string(a) != string(b) {
		t.Error("tar files differ")
	}
	if err := os.WriteFile(s.Binaries["/b"], []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := Write(s, first); err != nil || changed == digest {
		t.Errorf("another input gave the same digest %s (%v)", changed, err)
	}
}

func TestAnUpToDateFileIsLeftAlone(t *testing.T) {
	s := spec(t)
	out, digest := write(t, s)
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := os.Chtimes(out, old, old); err != nil {
		t.Fatal(err)
	}
	again, err := Write(s, out)
	if err != nil || again != digest {
		t.Fatalf("got %s (%v), want %s", again, err, digest)
	}
	if info, _ := os.Stat(out); !info.ModTime().Equal(old) {
		t.Error("the tar file was written again")
	}
}

func TestContent(t *testing.T) {
	out, digest := write(t, spec(t))
	tag, err := name.NewTag("localhost/thing:dev", name.WithDefaultRegistry(""))
	if err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(out, &tag) // as Docker reads it
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "65532:65532" || len(config.Config.Entrypoint) != 1 || config.Config.Entrypoint[0] != "/a" || config.OS != "linux" {
		t.Errorf("config: %+v", config)
	}
	if !strings.Contains(entries(t, out)["index.json"], digest) {
		t.Error("index.json does not name the digest that was returned") // as containerd reads it
	}
}

func TestNothingInTheImageIsWritable(t *testing.T) {
	content, err := layerTar(spec(t).Binaries)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int64{}
	r := tar.NewReader(strings.NewReader(string(content)))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Mode&0o022 != 0 {
			t.Errorf("%s: owner %d:%d, mode %o", h.Name, h.Uid, h.Gid, h.Mode)
		}
		found[h.Name] = h.Mode
	}
	for name, mode := range map[string]int64{"a": 0o555, "deep/": 0o755, "deep/er/": 0o755, "deep/er/c": 0o555, "etc/passwd": 0o444} {
		if found[name] != mode {
			t.Errorf("%s has mode %o, want %o", name, found[name], mode)
		}
	}
}

func TestRefusals(t *testing.T) {
	for want, change := range map[string]func(*Spec){
		"entry point":      func(s *Spec) { s.Entrypoint = "/nowhere" },
		"image name":       func(s *Spec) { s.Name = "no tag" },
		"no absolute path": func(s *Spec) { s.Binaries["relative"] = s.Binaries["/a"] },
		"no such file":     func(s *Spec) { s.Binaries["/a"] = "/nowhere" },
	} {
		s := spec(t)
		change(&s)
		out := filepath.Join(t.TempDir(), "image.tar")
		if _, err := Write(s, out); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s: a tar file was written", want)
		}
	}
}

func TestADynamicBinaryNeedsItsLoader(t *testing.T) {
	const loader = "/lib64/loader.so"
	for kind, refused := range map[elf.ProgType]bool{elf.PT_INTERP: true, elf.PT_LOAD: false} {
		h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: 64, Phentsize: 56, Phnum: 1, Ehsize: 64, Shentsize: 64}
		copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
		var b bytes.Buffer
		for _, part := range []any{h, elf.Prog64{Type: uint32(kind), Off: 120, Filesz: uint64(len(loader) + 1)}, []byte(loader + "\x00")} {
			if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
				t.Fatal(err)
			}
		}
		if err := checkLoader(b.Bytes(), nil); (err != nil) != refused {
			t.Errorf("%s: %v", kind, err)
		}
		if err := checkLoader(b.Bytes(), map[string]string{loader: "loader.so"}); err != nil {
			t.Errorf("%s, with its loader: %v", kind, err)
		}
	}
}

func entries(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string]string{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = string(content)
	}
}
