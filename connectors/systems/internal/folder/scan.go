package folder

import (
	"cmp"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// maxFiles that are considered in one look at the folder, which may have millions.
const maxFiles = 1000

// seen is what a file was like when it was looked at first.
type seen struct {
	File
	since time.Time
}

// scan the folder for files that are complete, in their order; more says that there are others, next when one of those that are not may be.
func (i *Intake) scan(now time.Time) (ready []File, next time.Duration, err error) {
	found, err := i.find()
	if err != nil {
		return nil, 0, err
	}
	next = i.Rescan
	known := make(map[string]seen, len(found))
	for _, f := range found {
		was, ok := i.seen[f.Name]
		if !ok || !was.same(f) {
			was = seen{f, now}
		}
		known[f.Name] = was
		if left := i.StableFor - now.Sub(was.since); left > 0 && f.id() != i.note.ID {
			next = min(next, left)
			continue
		}
		if i.LockSuffix != "" {
			if _, err := i.fs.Stat(f.Name + i.LockSuffix); err == nil {
				continue
			}
		}
		ready = append(ready, f)
	}
	i.seen = known
	// What was begun comes first: notes are of one file.
	if at := slices.IndexFunc(ready, func(f File) bool { return f.id() == i.note.ID }); at > 0 {
		begun := ready[at]
		ready = slices.Insert(slices.Delete(ready, at, at+1), 0, begun)
	}
	return ready, next, nil
}

// find the first files of the folder whose names are of those that are wanted.
func (i *Intake) find() ([]File, error) {
	var found []File
	order := func(a, b File) int {
		if i.ByTime {
			if c := a.Modified.Compare(b.Modified); c != 0 {
				return c
			}
		}
		return cmp.Compare(a.Name, b.Name)
	}
	keep := func() {
		slices.SortFunc(found, order)
		found = found[:min(len(found), maxFiles)]
	}
	err := i.fs.List(i.Folder, func(name string) error {
		if !i.wanted(name) {
			return nil
		}
		f := File{Name: path.Join(i.Folder, name)}
		if i.ByTime {
			var ok bool
			var err error
			if f, ok, err = i.stat(f.Name); !ok {
				return err
			}
		}
		if found = append(found, f); len(found) >= 2*maxFiles {
			keep()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	keep()
	if i.ByTime {
		return found, nil
	}
	files := found[:0]
	for _, f := range found {
		f, ok, err := i.stat(f.Name)
		if err != nil {
			return nil, err
		}
		if ok {
			files = append(files, f)
		}
	}
	return files, nil
}

// stat a file; not ok says that it has gone, or is no file.
func (i *Intake) stat(name string) (File, bool, error) {
	f, err := i.fs.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return f, false, nil
	}
	return f, err == nil && f.Regular, err
}

func (i *Intake) wanted(name string) bool {
	if strings.HasPrefix(name, ".") || i.LockSuffix != "" && strings.HasSuffix(name, i.LockSuffix) {
		return false
	}
	for _, suffix := range i.IgnoreSuffixes {
		if strings.HasSuffix(name, suffix) {
			return false
		}
	}
	ok, err := path.Match(i.Pattern, name)
	return ok && err == nil
}
