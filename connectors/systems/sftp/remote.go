package sftp

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/pkg/sftp"

	"github.com/metip/metip/connectors/systems/internal/folder"
)

// Paths are relative to base, a folder of the server's; nothing leads out of it but a link that the server follows.
type tree struct {
	*remote
	base string
}

var _ folder.FS = tree{}

func (t tree) at(name string) string { return path.Join(t.base, name) }

// known makes an error of the server one that package fs knows.
func known(err error) error {
	var status *sftp.StatusError
	if errors.As(err, &status) {
		switch status.FxCode() {
		case sftp.ErrSSHFxNoSuchFile:
			return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
		case sftp.ErrSSHFxPermissionDenied:
			return fmt.Errorf("%w: %w", fs.ErrPermission, err)
		}
	}
	return err
}

// List implements folder.FS.
func (t tree) List(name string, each func(string) error) error {
	return t.with(func(s *session) error {
		entries, err := s.ReadDir(t.at(name))
		if err != nil {
			return known(err)
		}
		for _, e := range entries {
			if err := each(e.Name()); err != nil {
				return err
			}
		}
		return nil
	})
}

// Stat implements folder.FS.
func (t tree) Stat(name string) (f folder.File, err error) {
	err = t.with(func(s *session) error {
		info, err := s.Lstat(t.at(name))
		if err != nil {
			return known(err)
		}
		f = folder.File{Name: name, Size: info.Size(), Modified: info.ModTime(), Regular: info.Mode().IsRegular()}
		return nil
	})
	return f, err
}

// Open implements folder.FS.
func (t tree) Open(name string, offset int64) (in io.ReadCloser, err error) {
	err = t.with(func(s *session) error {
		info, err := s.Lstat(t.at(name))
		if err != nil {
			return known(err)
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is no regular file", name)
		}
		file, err := s.Client.Open(t.at(name))
		if err != nil {
			return known(err)
		}
		if _, err := file.Seek(offset, io.SeekStart); err != nil {
			_ = file.Close()
			return err
		}
		in = &reader{file, t.remote, s}
		return nil
	})
	return in, err
}

// reader closes the connection that it finds broken.
type reader struct {
	*sftp.File
	remote  *remote
	session *session
}

func (r *reader) Read(b []byte) (int, error) {
	n, err := r.File.Read(b)
	if err != nil && lost(err) {
		r.session.close()
	}
	return n, err
}

// WriteTo would read ahead what nobody has asked for.
func (r *reader) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, struct{ io.Reader }{r}) }

// Rename implements folder.FS.
func (t tree) Rename(from, to string) error {
	return t.with(func(s *session) error { return s.rename(t.at(from), t.at(to)) })
}

// rename at once, in place of what is there. A server without the extension cannot: there what is in the way is removed before.
func (s *session) rename(from, to string) error {
	if _, ok := s.HasExtension("posix-rename@openssh.com"); ok {
		return known(s.PosixRename(from, to))
	}
	err := s.Client.Rename(from, to)
	if err == nil || lost(err) {
		return err
	}
	if _, missing := s.Lstat(to); missing != nil {
		return known(err)
	}
	if err := s.Client.Remove(to); err != nil {
		return known(err)
	}
	return known(s.Client.Rename(from, to))
}

// Remove implements folder.FS.
func (t tree) Remove(name string) error {
	return t.with(func(s *session) error { return known(s.Client.Remove(t.at(name))) })
}

// Mkdir implements folder.FS.
func (t tree) Mkdir(name string) error {
	return t.with(func(s *session) error { return known(s.Client.Mkdir(t.at(name))) })
}

// Write implements folder.FS.
func (t tree) Write(name string, data []byte) error {
	return t.with(func(s *session) error {
		sum := sha256.Sum256([]byte(name))
		temporary := path.Join(path.Dir(t.at(name)), "."+hex.EncodeToString(sum[:8])+".new")
		if err := s.put(temporary, data); err != nil {
			return err
		}
		return s.rename(temporary, t.at(name))
	})
}

// put a file that is there wholly when it returns, on the server's disk where the server can say so.
func (s *session) put(name string, data []byte) error {
	file, err := s.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return known(err)
	}
	_, err = file.Write(data)
	if err == nil {
		err = s.flush(file)
	}
	return errors.Join(known(err), known(file.Close()))
}

func (s *session) flush(file *sftp.File) error {
	if _, ok := s.HasExtension("fsync@openssh.com"); !ok {
		return nil
	}
	return file.Sync()
}
