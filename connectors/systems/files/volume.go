package files

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/folder"
)

// modes of what is made: the volume's group works with it, too.
const (
	fileMode   = 0o660
	folderMode = 0o770
	// listed names are read at a time.
	listed = 512
)

// volume is where the claim is mounted. Its root is opened for each use, so that one that has gone, or was mounted anew, is noticed.
type volume struct {
	dir, claim string
}

func newVolume(c *contract.Config) (volume, error) {
	if c.Volume == nil || c.Volume.Dir == "" {
		return volume{}, errors.New("the configuration has no volume")
	}
	return volume{c.Volume.Dir, c.Volume.Claim}, nil
}

func (v volume) endpoint(name string) string {
	return strings.TrimSuffix("volume "+v.claim+" "+path.Join("/", name), " ")
}

func (v volume) with(f func(*os.Root) error) error {
	root, err := os.OpenRoot(v.dir)
	if err != nil {
		return fmt.Errorf("the volume: %w", bare(err))
	}
	defer func() { _ = root.Close() }()
	return f(root)
}

// bare is an error without paths of the pod.
func bare(err error) error {
	var e *os.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// List implements folder.FS.
func (v volume) List(name string, each func(string) error) error {
	return v.with(func(root *os.Root) error {
		dir, err := root.Open(local(name))
		if err != nil {
			return err
		}
		defer func() { _ = dir.Close() }()
		for {
			names, err := dir.Readdirnames(listed)
			for _, n := range names {
				if err := each(n); err != nil {
					return err
				}
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
}

// local is the name as os.Root wants it.
func local(name string) string {
	if name == "" {
		return "."
	}
	return name
}

// Stat implements folder.FS.
func (v volume) Stat(name string) (f folder.File, err error) {
	err = v.with(func(root *os.Root) error {
		info, err := root.Lstat(local(name))
		if err != nil {
			return err
		}
		f = folder.File{Name: name, Size: info.Size(), Modified: info.ModTime(), Regular: info.Mode().IsRegular()}
		return nil
	})
	return f, err
}

// Open implements folder.FS.
func (v volume) Open(name string, offset int64) (in io.ReadCloser, err error) {
	err = v.with(func(root *os.Root) error {
		before, err := root.Lstat(name)
		if err != nil {
			return err
		}
		if !before.Mode().IsRegular() {
			return fmt.Errorf("%s is no regular file", name)
		}
		file, err := root.Open(name)
		if err != nil {
			return err
		}
		after, err := file.Stat()
		if err == nil && !os.SameFile(before, after) {
			err = fmt.Errorf("%s is another file by now", name)
		}
		if err == nil && offset > 0 {
			_, err = file.Seek(offset, io.SeekStart)
		}
		if err != nil {
			_ = file.Close()
			return err
		}
		in = file
		return nil
	})
	return in, err
}

// Rename implements folder.FS.
func (v volume) Rename(from, to string) error {
	return v.with(func(root *os.Root) error { return root.Rename(from, to) })
}

// Remove implements folder.FS.
func (v volume) Remove(name string) error {
	return v.with(func(root *os.Root) error { return root.Remove(name) })
}

// Mkdir implements folder.FS.
func (v volume) Mkdir(name string) error {
	return v.with(func(root *os.Root) error { return root.Mkdir(name, folderMode) })
}

// Write implements folder.FS.
func (v volume) Write(name string, data []byte) error {
	return v.with(func(root *os.Root) error {
		temporary := path.Join(path.Dir(name), "."+path.Base(name)+".new")
		if err := root.WriteFile(temporary, data, fileMode); err != nil {
			return err
		}
		return root.Rename(temporary, name)
	})
}

var _ folder.FS = volume{}

// unavailable is the state of a volume that does not work.
func (v volume) unavailable(err error) error {
	return sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: %w", v.endpoint(""), err))
}
