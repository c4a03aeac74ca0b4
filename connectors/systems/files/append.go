package files

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/folder"
)

const (
	// maxTail is how far back the beginning of a line is looked for that was left incomplete.
	maxTail = 32 << 20
	// maxFollowed files whose rotation is looked after by the clock.
	maxFollowed = 1024
)

// appender adds messages to files, a line each.
type appender struct {
	sink *sink
	path folder.Path
	// size and every rotate a file; 0 does not.
	size  int64
	every time.Duration

	// mu is held while files are written: one after the other.
	mu sync.Mutex
	// written are the files that were written and not rotated since, and when.
	written map[string]time.Time
}

// MaxBatch implements sdk.Operation.
func (*appender) MaxBatch() int { return 4 * maxBatch }

// Opaque implements sdk.Opaque.
func (a *appender) Opaque() bool { return a.path.Fixed }

// Write adds the messages in the batch's order, and answers when they are on the disk.
func (a *appender) Write(ctx context.Context, batch []*sdk.Delivery) []error {
	results := make([]error, len(batch))
	var order []string
	members := map[string][]int{}
	lines := make([][]byte, len(batch))
	for i, d := range batch {
		name, err := a.path.For(d.Message)
		if err == nil {
			lines[i], err = line(d.Message)
		}
		if err != nil {
			results[i] = err
			continue
		}
		if _, ok := members[name]; !ok {
			order = append(order, name)
		}
		members[name] = append(members[name], i)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, name := range order {
		text := make([][]byte, 0, len(members[name]))
		for _, i := range members[name] {
			text = append(text, lines[i])
		}
		err := ctx.Err()
		if err == nil {
			err = a.sink.volume.with(func(root *os.Root) error { return a.add(root, name, text, time.Now()) })
		}
		if err != nil {
			err = a.sink.failure(ctx, name, err)
		}
		for _, i := range members[name] {
			results[i] = err
		}
	}
	return results
}

// line of a message: JSON without line breaks, everything else as it is.
func line(m *sdk.Message) ([]byte, error) {
	var out bytes.Buffer
	if m.Format == sdk.FormatJSON {
		if err := json.Compact(&out, m.Data); err != nil {
			return nil, sdk.Permanent(fmt.Errorf("the body: %w", err))
		}
	} else {
		if bytes.ContainsAny(m.Data, "\r\n") {
			return nil, sdk.Permanent(errors.New("the body has line breaks, which would be taken for the end of it: write a file for each message"))
		}
		out.Write(m.Data)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// add lines to a file, all or none. Before, the file is rotated if it is too large or of another time.
func (a *appender) add(root *os.Root, name string, lines [][]byte, now time.Time) error {
	for len(lines) > 0 {
		file, size, err := a.open(root, name, int64(len(lines[0])), now)
		if err != nil {
			return err
		}
		var chunk []byte
		n := 0
		for n < len(lines) && (n == 0 || a.size == 0 || size+int64(len(chunk)+len(lines[n])) <= a.size) {
			chunk = append(chunk, lines[n]...)
			n++
		}
		_, err = file.WriteAt(chunk, size)
		if err == nil {
			err = file.Sync()
		}
		if err != nil {
			_ = file.Truncate(size) // half a line would become part of the next one
		}
		_ = file.Close()
		if err == nil && size == 0 {
			err = syncFolder(root, path.Dir(name))
		}
		if err != nil {
			return err
		}
		lines = lines[n:]
		if len(a.written) < maxFollowed || !a.written[name].IsZero() {
			a.written[name] = now
		}
	}
	return nil
}

// open the file for so many more bytes, and say where they go.
func (a *appender) open(root *os.Root, name string, more int64, now time.Time) (*os.File, int64, error) {
	info, err := root.Lstat(name)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return nil, 0, sdk.Permanentf("%s is there, and no file", a.sink.volume.endpoint(name))
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, 0, err
	case err == nil && info.Size() > 0 && (a.size > 0 && info.Size()+more > a.size || a.old(info.ModTime(), now)):
		if err := a.rotate(root, name, info.ModTime()); err != nil {
			return nil, 0, err
		}
	}
	if err := root.MkdirAll(path.Dir(name), folderMode); err != nil {
		return nil, 0, err
	}
	file, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, 0, err
	}
	size, err := mend(file)
	if err != nil {
		_ = file.Close()
		return nil, 0, err
	}
	return file, size, nil
}

// mend cuts off a line that a killed pod, or a full disk, has left incomplete: it was not confirmed, and comes again.
func mend(file *os.File) (int64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	buffer := make([]byte, 4<<10)
	for end := size; end > 0 && size-end <= maxTail; {
		from := max(0, end-int64(len(buffer)))
		piece := buffer[:end-from]
		if _, err := file.ReadAt(piece, from); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		at := bytes.LastIndexByte(piece, '\n')
		if at < 0 && from > 0 {
			end = from
			continue
		}
		complete := from + int64(at) + 1
		if complete < size {
			err = file.Truncate(complete)
		}
		return complete, err
	}
	if size > 0 {
		return 0, errors.New("the file's end is no line: move it away")
	}
	return 0, nil
}

// old tells whether a file that was written then is of another time than now.
func (a *appender) old(written, now time.Time) bool {
	return a.every > 0 && written.UTC().Truncate(a.every).Before(now.UTC().Truncate(a.every))
}

// rotate gives a file the time of its last line as part of its name.
func (a *appender) rotate(root *os.Root, name string, written time.Time) error {
	extension := path.Ext(name)
	stamp := strings.Replace(written.UTC().Format("20060102T150405.000000000"), ".", "", 1) + "Z"
	to := strings.TrimSuffix(name, extension) + "-" + stamp + extension
	for n := 1; ; n++ {
		if _, err := root.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return err
		}
		to = fmt.Sprintf("%s-%s-%d%s", strings.TrimSuffix(name, extension), stamp, n, extension)
	}
	if err := root.Rename(name, to); err != nil {
		return err
	}
	delete(a.written, name)
	return syncFolder(root, path.Dir(name))
}

// due rotates the files whose time has passed, so that who waits for them need not wait for the next message.
func (a *appender) due(now time.Time) {
	if a.every == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, written := range a.written {
		if !a.old(written, now) {
			continue
		}
		_ = a.sink.volume.with(func(root *os.Root) error { // what fails is tried again with the next message
			info, err := root.Lstat(name)
			if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
				return err
			}
			return a.rotate(root, name, info.ModTime())
		})
		delete(a.written, name)
	}
}
