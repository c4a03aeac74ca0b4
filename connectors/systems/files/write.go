package files

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/folder"
)

// writers is how many files of one batch are written side by side: a flush takes time, and many take hardly more.
const writers = 8

// writer makes a file of each message.
type writer struct {
	sink *sink
	path folder.Path
	// reject a message whose file is there, with other content.
	reject bool
}

// MaxBatch implements sdk.Operation.
func (*writer) MaxBatch() int { return maxBatch }

// Streams implements sdk.Streaming: a claim is written as it is read.
func (*writer) Streams() bool { return true }

// Opaque implements sdk.Opaque.
func (w *writer) Opaque() bool { return w.path.Fixed }

// Write makes the files, and answers when they and their names are on the disk. Two messages of one path are written in the batch's order.
func (w *writer) Write(ctx context.Context, batch []*sdk.Delivery) []error {
	results := make([]error, len(batch))
	names := make([]string, len(batch))
	groups := map[string][]int{}
	for i, d := range batch {
		if names[i], results[i] = w.path.For(d.Message); results[i] == nil {
			groups[names[i]] = append(groups[names[i]], i)
		}
	}
	err := w.sink.volume.with(func(root *os.Root) error {
		if err := root.MkdirAll(path.Join(folder.OwnFolder, "tmp"), folderMode); err != nil {
			return err
		}
		var wg sync.WaitGroup
		slots := make(chan struct{}, writers)
		for name, members := range groups {
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				for _, i := range members {
					if err := w.one(ctx, root, name, batch[i]); err != nil {
						results[i] = w.sink.failure(ctx, name, err)
					}
				}
			})
		}
		wg.Wait()
		return w.flush(ctx, root, names, results)
	})
	if err != nil {
		for i := range results {
			if results[i] == nil {
				results[i] = w.sink.failure(ctx, "", err)
			}
		}
	}
	return results
}

// flush the folders of the files that were made.
func (w *writer) flush(ctx context.Context, root *os.Root, names []string, results []error) error {
	folders := map[string]error{}
	for i, name := range names {
		if results[i] != nil {
			continue
		}
		folder := path.Dir(name)
		err, known := folders[folder]
		if !known {
			err = syncFolder(root, folder)
			folders[folder] = err
		}
		if err != nil {
			results[i] = w.sink.failure(ctx, name, err)
		}
	}
	return nil
}

// syncFolder makes the names in it last, and those of the folders above, which may be new.
func syncFolder(root *os.Root, folder string) error {
	for {
		dir, err := root.Open(folder)
		if err != nil {
			return err
		}
		err = dir.Sync()
		_ = dir.Close()
		if err != nil || folder == "." {
			return err
		}
		folder = path.Dir(folder)
	}
}

var temporaries atomic.Int64

func (w *writer) one(ctx context.Context, root *os.Root, name string, d *sdk.Delivery) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if info, err := root.Lstat(name); err == nil {
		switch {
		case !info.Mode().IsRegular() && info.Mode()&fs.ModeSymlink == 0:
			return sdk.Permanentf("%s is there, and no file", w.sink.volume.endpoint(name))
		case w.reject:
			return w.compare(root, name, d)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := root.MkdirAll(path.Dir(name), folderMode); err != nil {
		return err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d\x00%d", d.Durable, d.MessageID, time.Now().UnixNano(), temporaries.Add(1)))
	temporary := path.Join(folder.OwnFolder, "tmp", hex.EncodeToString(sum[:16]))
	if err := w.fill(ctx, root, temporary, d); err != nil {
		_ = root.Remove(temporary)
		return err
	}
	if err := root.Rename(temporary, name); err != nil {
		_ = root.Remove(temporary)
		return err
	}
	return nil
}

// fill a temporary file, and flush it.
func (w *writer) fill(ctx context.Context, root *os.Root, name string, d *sdk.Delivery) error {
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	in := body(ctx, d)
	defer func() { _ = in.Close() }()
	if _, err := io.Copy(file, in); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return file.Close()
}

func body(ctx context.Context, d *sdk.Delivery) io.ReadCloser {
	if d.Claim != nil {
		return d.Claim.Open(ctx)
	}
	return io.NopCloser(bytes.NewReader(d.Data))
}

// compare a file that is there with the message: the same means that it was delivered before.
func (w *writer) compare(root *os.Root, name string, d *sdk.Delivery) error {
	other := sdk.Permanentf("%s is there, with other content", w.sink.volume.endpoint(name))
	if d.Claim != nil {
		return other
	}
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() != int64(len(d.Data)) {
		return other
	}
	have, err := root.ReadFile(name)
	if err != nil {
		return err
	}
	if !bytes.Equal(have, d.Data) {
		return other
	}
	return nil
}
