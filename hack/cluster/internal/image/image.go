// Package image makes container images of static binaries, or of others with their libraries, without a container engine: one layer, no shell, files
// owned by root, an unprivileged user. The same input gives the same digest.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// User is whom the image's processes run as unless the pod says otherwise; any other user id works as well.
const User = "65532"

const passwd = "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n"

const group = "root:x:0:\nnonroot:x:65532:\n"

// Spec says what goes into an image.
type Spec struct {
	Name       string            // with a tag, e.g. localhost/metip:dev
	Entrypoint string            // path of the binary in the image
	Arch       string            // Go's name of the architecture
	Binaries   map[string]string // path in the image -> file
}

// check refuses a specification that no image can be made of.
func (s Spec) check() error {
	if _, err := name.NewTag(s.Name, name.StrictValidation, name.WithDefaultRegistry("")); err != nil {
		return fmt.Errorf("image name: %w; write for example localhost/metip:dev", err)
	}
	if _, ok := s.Binaries[s.Entrypoint]; !ok {
		return fmt.Errorf("image %s: the entry point %s is none of its binaries", s.Name, s.Entrypoint)
	}
	return nil
}

// build makes the image around the files of its one layer.
func build(s Spec, files []byte) (v1.Image, error) {
	layer, err := newLayer(files)
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.Append(base, mutate.Addendum{Layer: layer, MediaType: types.OCILayer})
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", s.Arch
	config.Config = v1.Config{
		User:       User + ":" + User,
		Entrypoint: []string{s.Entrypoint},
		WorkingDir: "/",
		Env:        []string{"PATH=/"},
	}
	return mutate.ConfigFile(img, config)
}

// layerTar is the one layer: fixed order, times and owners.
func layerTar(binaries map[string]string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	folders := map[string]bool{"/": true}
	folder := func(dir string) error {
		var missing []string
		for ; !folders[dir]; dir = path.Dir(dir) {
			missing = append(missing, dir)
			folders[dir] = true
		}
		for _, d := range slices.Backward(missing) {
			if err := w.WriteHeader(header(tar.TypeDir, d, 0o755, 0)); err != nil {
				return err
			}
		}
		return nil
	}
	file := func(name string, mode int64, content []byte) error {
		if err := folder(path.Dir(name)); err != nil {
			return err
		}
		if err := w.WriteHeader(header(tar.TypeReg, name, mode, int64(len(content)))); err != nil {
			return err
		}
		_, err := w.Write(content)
		return err
	}
	if err := file("/etc/group", 0o444, []byte(group)); err != nil {
		return nil, err
	}
	if err := file("/etc/passwd", 0o444, []byte(passwd)); err != nil {
		return nil, err
	}
	var names []string
	for n := range binaries {
		if !path.IsAbs(n) || path.Clean(n) != n {
			return nil, fmt.Errorf("%q is no absolute path in the image; write for example /manager", n)
		}
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		content, err := os.ReadFile(binaries[n])
		if err != nil {
			return nil, err
		}
		if err := checkLoader(content, binaries); err != nil {
			return nil, fmt.Errorf("%s: %w", binaries[n], err)
		}
		if err := file(n, 0o555, content); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}

// checkLoader refuses a binary whose dynamic loader the image lacks: it would end with "no such file".
func checkLoader(content []byte, binaries map[string]string) error {
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil //nolint:nilerr // no ELF file: data is welcome
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		loader, err := io.ReadAll(p.Open())
		if err != nil {
			return err
		}
		if _, ok := binaries[strings.TrimRight(string(loader), "\x00")]; !ok {
			return fmt.Errorf("it is linked dynamically, and the image lacks its loader %s; build it with CGO_ENABLED=0, or add its libraries", loader)
		}
	}
	return nil
}

func header(kind byte, name string, mode, size int64) *tar.Header {
	name = strings.TrimPrefix(name, "/")
	if kind == tar.TypeDir {
		name += "/"
	}
	return &tar.Header{Typeflag: kind, Name: name, Mode: mode, Size: size, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
}

// Write writes the image as a tar file that containerd, kind, podman and Docker all load, and returns its digest.
// A tar file that was written of the same input is left as it is.
func Write(s Spec, out string) (string, error) {
	if err := s.check(); err != nil {
		return "", err
	}
	files, err := layerTar(s.Binaries)
	if err != nil {
		return "", fmt.Errorf("image %s: %w", s.Name, err)
	}
	input := fmt.Sprintf("%d %s %s %s %x", format, s.Name, s.Entrypoint, s.Arch, sha256.Sum256(files))
	if digest := written(out, input); digest != "" {
		return digest, nil
	}
	img, err := build(s, files)
	if err != nil {
		return "", err
	}
	digest, err := img.Digest()
	if err != nil {
		return "", err
	}
	if err := writeArchive(img, s.Name, out); err != nil {
		return "", fmt.Errorf("image %s: %w", s.Name, err)
	}
	return digest.String(), os.WriteFile(out+noteSuffix, []byte(input+"\n"+digest.String()+"\n"), 0o644)
}

// format is raised when the same input is to give another image.
const format = 1

// noteSuffix names the file beside a tar file that says what it was made of and its digest.
const noteSuffix = ".made"

// written is the digest of the tar file if it was made of the input.
func written(out, input string) string {
	if _, err := os.Stat(out); err != nil {
		return ""
	}
	note, err := os.ReadFile(out + noteSuffix)
	if err != nil {
		return ""
	}
	made, digest, _ := strings.Cut(strings.TrimSpace(string(note)), "\n")
	if made != input {
		return ""
	}
	return digest
}
