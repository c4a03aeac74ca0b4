package sftp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sync"

	"github.com/pkg/sftp"

	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/folder"
)

const (
	maxBatch = 64
	// writers is how many files of one batch are written side by side, over one connection.
	writers = 8
)

// sink writes files to a server.
type sink struct {
	tree  tree
	write json.RawMessage
}

// NewSink makes a sink of the JSON of the API's SFTPSink. It connects when it is first used.
func NewSink(rt sdk.Runtime, raw json.RawMessage) (sdk.Sink, error) {
	var o struct {
		Connection connectionOptions `json:"connection"`
		Base       string            `json:"base"`
		Write      json.RawMessage   `json:"write"`
	}
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	r, err := newRemote(rt, o.Connection)
	if err != nil {
		return nil, err
	}
	base, err := baseOf(o.Base)
	if err != nil {
		return nil, err
	}
	return &sink{tree{r, base}, o.Write}, nil
}

// Check logs in, and asks whether the base is there.
func (s *sink) Check(ctx context.Context) error {
	done := make(chan error, 1)
	go func() {
		_, err := s.tree.Stat("")
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return s.tree.unavailable(err)
		}
		return nil
	case <-ctx.Done():
		return s.tree.unavailable(errors.New("no answer in time"))
	}
}

// Close the connection.
func (s *sink) Close() error {
	s.tree.close()
	return nil
}

// writeOptions are the JSON of the API's SFTPWrite.
type writeOptions struct {
	Path   string `json:"path"`
	Exists string `json:"exists"`
}

// Operation compiles a write; nil means the Connector's own.
func (s *sink) Operation(raw json.RawMessage) (sdk.Operation, error) {
	if len(raw) == 0 {
		raw = s.write
	}
	if len(raw) == 0 {
		return nil, errors.New("write is missing")
	}
	var o writeOptions
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	p, err := folder.CompilePath(o.Path)
	if err != nil {
		return nil, err
	}
	return &operation{s, p, o.Exists == "Reject"}, nil
}

// operation makes a file of each message.
type operation struct {
	sink *sink
	path folder.Path
	// reject a message whose file is there, with other content.
	reject bool
}

// MaxBatch implements sdk.Operation.
func (*operation) MaxBatch() int { return maxBatch }

// Opaque implements sdk.Opaque.
func (o *operation) Opaque() bool { return o.path.Fixed }

// Write makes the files, and answers when the server has them under their names. Two messages of one path are written in the batch's order.
func (o *operation) Write(ctx context.Context, batch []*sdk.Delivery) []error {
	results := make([]error, len(batch))
	groups := map[string][]int{}
	for i, d := range batch {
		name, err := o.path.For(d.Message)
		if err != nil {
			results[i] = err
			continue
		}
		groups[name] = append(groups[name], i)
	}
	done := make(chan struct{})
	written := make([]error, len(batch))
	go func() { // the library knows no context: what hangs is left, and breaks off with its connection
		defer close(done)
		var wg sync.WaitGroup
		slots := make(chan struct{}, writers)
		for name, members := range groups {
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				for _, i := range members {
					written[i] = o.one(ctx, name, batch[i])
				}
			})
		}
		wg.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		o.sink.tree.close()
		<-done
	}
	for name, members := range groups {
		for _, i := range members {
			if written[i] != nil {
				results[i] = o.failure(ctx, name, written[i])
			}
		}
	}
	return results
}

func (o *operation) one(ctx context.Context, name string, d *sdk.Delivery) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	t := o.sink.tree
	return t.with(func(s *session) error {
		to := t.at(name)
		info, err := s.Lstat(to)
		switch {
		case err == nil && info.IsDir():
			return sdk.Permanentf("%s/%s is there, and a folder", t.endpoint, name)
		case err == nil && o.reject:
			return o.compare(s, name, info, d)
		case err != nil && !errors.Is(known(err), fs.ErrNotExist):
			return known(err)
		}
		sum := sha256.Sum256([]byte(d.Durable + "\x00" + d.MessageID))
		temporary := path.Join(path.Dir(to), ".metip-"+hex.EncodeToString(sum[:12])+".tmp")
		err = s.put(temporary, d.Data)
		if errors.Is(err, fs.ErrNotExist) { // its folder
			if err = s.MkdirAll(path.Dir(to)); err == nil {
				err = s.put(temporary, d.Data)
			}
		}
		if err != nil {
			return err
		}
		return s.rename(temporary, to)
	})
}

// compare a file that is there with the message: the same means that it was delivered before.
func (o *operation) compare(s *session, name string, info fs.FileInfo, d *sdk.Delivery) error {
	other := sdk.Permanentf("%s/%s is there, with other content", o.sink.tree.endpoint, name)
	if !info.Mode().IsRegular() || info.Size() != int64(len(d.Data)) {
		return other
	}
	file, err := s.Client.Open(o.sink.tree.at(name))
	if err != nil {
		return known(err)
	}
	defer func() { _ = file.Close() }()
	have, err := io.ReadAll(io.LimitReader(struct{ io.Reader }{file}, int64(len(d.Data))+1))
	if err != nil {
		return err
	}
	if !bytes.Equal(have, d.Data) {
		return other
	}
	return nil
}

// failure of a file, as a result of its message.
func (o *operation) failure(ctx context.Context, name string, err error) error {
	var status *sftp.StatusError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s/%s: not written in time: %w", o.sink.tree.endpoint, name, ctx.Err())
	case sdk.IsPermanent(err):
		return err
	case errors.As(err, &status) && status.FxCode() == sftp.ErrSSHFxFailure:
		// The server does not say more: the disk is full, a name is too long, a file is where a folder should be.
		return fmt.Errorf("%s/%s: %w", o.sink.tree.endpoint, name, err)
	}
	return o.sink.tree.unavailable(fmt.Errorf("%s: %w", name, err))
}
