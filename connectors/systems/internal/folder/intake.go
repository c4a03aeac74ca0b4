package folder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path"
	"strings"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

const (
	minPause = 200 * time.Millisecond
	maxPause = 5 * time.Second
	// suspendedPause between two looks whether the source is still suspended.
	suspendedPause = time.Second
	// noteInterval between two notes of how far a file was read.
	noteInterval = time.Second
	maxNote      = 64 << 10
)

// Intake takes in the files of one folder.
type Intake struct {
	Options
	fs  FS
	log *slog.Logger
	// Wake says that something may have changed; nil where nobody knows.
	Wake <-chan struct{}
	// Look is called before the folder is looked at; it may be nil.
	Look func()

	seen map[string]seen
	note note
	// noted is when the note was written, if it was.
	noted   time.Time
	failing bool
}

// note is how far a file was read.
type note struct {
	Name   string `json:"name"`
	ID     string `json:"id"`
	Offset int64  `json:"offset"`
}

// New makes an Intake of options that were checked.
func New(f FS, o Options, log *slog.Logger) *Intake { return &Intake{Options: o, fs: f, log: log} }

// Run takes files in until the context ends, and returns once what was taken in is settled.
func (i *Intake) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	pause, loaded := minPause, false
	for ctx.Err() == nil {
		var took int
		var err error
		wait := suspendedPause
		if i.Look != nil {
			i.Look()
		}
		if errors.Is(bus.Ready(), sdk.ErrSuspended) {
			_, _, err = i.scan(time.Now())
		} else {
			if !loaded {
				loaded, err = i.load()
			}
			if err == nil {
				took, wait, err = i.round(ctx, bus, state)
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		wake := i.Wake
		switch {
		case err != nil:
			i.failing = true
			state.System(i.unavailable(err))
			wait, wake = pause, nil
			pause = min(2*pause, maxPause)
		default:
			i.failing, pause = false, minPause
			state.System(nil)
			if took > 0 {
				continue
			}
		}
		if !rest(ctx, wake, wait) {
			return nil
		}
	}
	return nil
}

// rest until something may have changed; false at the end of the context.
func rest(ctx context.Context, wake <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-wake:
	case <-timer.C:
	}
	return true
}

// unavailable is the state of a folder that cannot be read, or a file in it.
func (i *Intake) unavailable(err error) error {
	var already *sdk.UnavailableError
	if errors.As(err, &already) {
		return already
	}
	return sdk.Unavailable(contract.ReasonSystemError, fmt.Errorf("%s: %w", i.Endpoint, err))
}

// round takes in the files that are complete now.
func (i *Intake) round(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) (took int, next time.Duration, err error) {
	files, next, err := i.scan(time.Now())
	if err != nil {
		return 0, 0, err
	}
	if !i.failing {
		state.System(nil)
	}
	for len(files) > 0 && ctx.Err() == nil {
		n := 1
		switch {
		case i.Kind != Whole:
			err = i.records(ctx, bus, files[0])
		case files[0].Size > contract.MaxMessageSize && files[0].Size <= i.MaxFile:
			err = i.large(ctx, bus, files[0])
		default:
			n, err = i.wholes(ctx, bus, files)
		}
		if err != nil {
			return took, next, err
		}
		took += n
		files = files[n:]
		if errors.Is(bus.Ready(), sdk.ErrSuspended) {
			break
		}
	}
	return took, next, nil
}

func (i *Intake) notePath() string { return path.Join(i.Folder, ".metip", "read-"+i.Owner) }

// load the note of the pod before.
func (i *Intake) load() (bool, error) {
	if i.Kind == Whole {
		return true, nil
	}
	in, err := i.fs.Open(i.notePath(), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = in.Close() }()
	raw, err := io.ReadAll(io.LimitReader(in, maxNote))
	if err != nil {
		return false, err
	}
	var n note
	if err := json.Unmarshal(raw, &n); err != nil || n.Offset < 0 {
		i.log.Warn("the note of how far a file was read is damaged: it is read from its beginning", "note", i.notePath())
		return true, nil
	}
	i.note, i.noted = n, time.Now()
	return true, nil
}

// remember how far a file was read; always, or now and then.
func (i *Intake) remember(f File, offset int64, always bool) error {
	i.note = note{f.Name, f.id(), offset}
	if !always && time.Since(i.noted) < noteInterval {
		return nil
	}
	raw, err := json.Marshal(i.note)
	if err != nil {
		return err
	}
	if err := i.mkdir(path.Dir(i.notePath())); err != nil {
		return err
	}
	i.noted = time.Now()
	return i.fs.Write(i.notePath(), raw)
}

// finish puts a file away that was taken in.
func (i *Intake) finish(f File) error {
	now, ok, err := i.stat(f.Name)
	switch {
	case err != nil:
		return err
	case !ok:
		i.log.Warn("a file has gone while it was read", "file", f.Name)
	case !now.same(f):
		i.log.Warn("a file has changed while it was read: it is read again, as another one", "file", f.Name)
		i.seen = nil
	case i.Done == "":
		err = i.fs.Remove(f.Name)
	default:
		err = i.move(f, i.Done)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return i.forget()
}

func (i *Intake) forget() error {
	if i.note.ID == "" {
		return nil
	}
	i.note = note{}
	if i.noted.IsZero() {
		return nil
	}
	i.noted = time.Time{}
	if err := i.fs.Remove(i.notePath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// fail puts a file away that cannot be taken in, and beside it why.
func (i *Intake) fail(f File, why error) error {
	text := strings.Join(strings.Fields(why.Error()), " ")
	i.log.Warn("a file cannot be taken in", "file", f.Name, "folder", i.Failed, "reason", text)
	if err := i.mkdir(i.Failed); err != nil {
		return err
	}
	if err := i.fs.Write(path.Join(i.Failed, path.Base(f.Name)+".error"), []byte(text+"\n")); err != nil {
		return err
	}
	if err := i.move(f, i.Failed); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return i.forget()
}

// move a file to a folder, under another name if there is one of its name.
func (i *Intake) move(f File, folder string) error {
	if err := i.mkdir(folder); err != nil {
		return err
	}
	to := path.Join(folder, path.Base(f.Name))
	switch _, err := i.fs.Stat(to); {
	case err == nil:
		to += "." + f.id()
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return i.fs.Rename(f.Name, to)
}

// mkdir makes a folder and those above it, unless they are there; but never the one that is read, nor what that is in: when it has gone, somebody
// is to hear of it.
func (i *Intake) mkdir(name string) error {
	_, err := i.fs.Stat(name)
	if !errors.Is(err, fs.ErrNotExist) || name == "." || name == i.Folder || strings.HasPrefix(i.Folder, name+"/") {
		return err
	}
	if err := i.mkdir(path.Dir(name)); err != nil {
		return err
	}
	err = i.fs.Mkdir(name)
	if _, missing := i.fs.Stat(name); missing == nil { // by another one, at the same time
		return nil
	}
	return err
}
