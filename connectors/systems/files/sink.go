package files

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/folder"
	"github.com/metip/metip/connectors/systems/internal/quantity"
)

const (
	maxBatch = 128
	// staleAfter a temporary file is nobody's.
	staleAfter = time.Hour
	// tick between two looks whether files are due to be rotated.
	tick = time.Second
)

// sink writes to one volume.
type sink struct {
	volume volume
	write  json.RawMessage
	stop   context.CancelFunc
	done   chan struct{}

	// timed is closed once there is something to rotate by the clock.
	timed     chan struct{}
	timedOnce sync.Once

	mu      sync.Mutex
	appends []*appender
}

// NewSink makes a sink of the JSON of the API's FilesSink.
func NewSink(rt sdk.Runtime, raw json.RawMessage) (sdk.Sink, error) {
	var o struct {
		Volume volumeOptions   `json:"volume"`
		Write  json.RawMessage `json:"write"`
	}
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	v, err := newVolume(rt.Config)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // the sink's own life: Close ends it
	s := &sink{volume: v, write: o.Write, stop: cancel, done: make(chan struct{}), timed: make(chan struct{})}
	go s.tend(ctx)
	return s, nil
}

// tend removes what a killed pod has left, and rotates files that are due.
func (s *sink) tend(ctx context.Context) {
	defer close(s.done)
	_ = s.volume.with(removeStale) // a volume that does not work yet says so elsewhere
	select {
	case <-ctx.Done():
		return
	case <-s.timed:
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.mu.Lock()
			appends := s.appends
			s.mu.Unlock()
			for _, a := range appends {
				a.due(time.Now())
			}
		}
	}
}

func removeStale(root *os.Root) error {
	dir, err := root.Open(path.Join(folder.OwnFolder, "tmp"))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	infos, err := dir.Readdir(10_000)
	for _, info := range infos {
		if time.Since(info.ModTime()) > staleAfter {
			_ = root.Remove(path.Join(folder.OwnFolder, "tmp", info.Name()))
		}
	}
	return err
}

// Check asks whether the volume is there.
func (s *sink) Check(context.Context) error {
	err := s.volume.with(func(root *os.Root) error { _, err := root.Stat("."); return err })
	if err != nil {
		return s.volume.unavailable(err)
	}
	return nil
}

// Close implements sdk.Sink.
func (s *sink) Close() error {
	s.stop()
	<-s.done
	return nil
}

// writeOptions are the JSON of the API's FilesWrite.
type writeOptions struct {
	File *struct {
		Path   string `json:"path"`
		Exists string `json:"exists"`
	} `json:"file"`
	Append *struct {
		Path   string `json:"path"`
		Rotate *struct {
			Size  quantity.Quantity  `json:"size"`
			Every *contract.Duration `json:"every"`
		} `json:"rotate"`
	} `json:"append"`
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
	switch {
	case o.File != nil && o.Append == nil:
		p, err := folder.CompilePath(o.File.Path)
		if err != nil {
			return nil, err
		}
		return &writer{sink: s, path: p, reject: o.File.Exists == "Reject"}, nil
	case o.Append != nil && o.File == nil:
		p, err := folder.CompilePath(o.Append.Path)
		if err != nil {
			return nil, err
		}
		a := &appender{sink: s, path: p, written: map[string]time.Time{}}
		if r := o.Append.Rotate; r != nil {
			a.size = int64(r.Size)
			if r.Every != nil {
				a.every = time.Duration(*r.Every)
				s.timedOnce.Do(func() { close(s.timed) })
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.appends = append(s.appends, a)
		return a, nil
	default:
		return nil, errors.New("write: exactly one of file and append is needed")
	}
}

// failure of a file, as a result of its message.
func (s *sink) failure(ctx context.Context, name string, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: not written in time: %w", s.volume.endpoint(name), ctx.Err())
	case sdk.IsPermanent(err):
		return err
	case errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EEXIST),
		errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, syscall.ELOOP), strings.Contains(err.Error(), "escapes"):
		return sdk.Permanent(fmt.Errorf("%s: %w", s.volume.endpoint(name), bare(err)))
	default:
		return s.volume.unavailable(err)
	}
}
