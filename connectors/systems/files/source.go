package files

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"

	"github.com/fsnotify/fsnotify"

	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/folder"
)

// sourceOptions are the JSON of the API's FilesSource.
type sourceOptions struct {
	Volume volumeOptions `json:"volume"`
	folder.SourceOptions
}

// volumeOptions are the JSON of the API's FilesVolume: the operator's affair.
type volumeOptions struct {
	ClaimName string `json:"claimName"`
	FSGroup   *int64 `json:"fsGroup"`
}

// source takes in the files of a folder.
type source struct {
	rt     sdk.Runtime
	volume volume
	intake *folder.Intake
	dir    string
}

// NewSource makes a source of the JSON of the API's FilesSource.
func NewSource(rt sdk.Runtime, raw json.RawMessage) (sdk.Source, error) {
	var o sourceOptions
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	if rt.Config.Source == nil {
		return nil, errors.New("the configuration has no source")
	}
	v, err := newVolume(rt.Config)
	if err != nil {
		return nil, err
	}
	to, err := o.Options(rt.Config)
	if err != nil {
		return nil, err
	}
	to.Endpoint = v.endpoint(to.Folder)
	if err := to.Check(); err != nil {
		return nil, err
	}
	return &source{rt: rt, volume: v, intake: folder.New(v, to, rt.Log), dir: filepath.Join(v.dir, to.Folder)}, nil
}

// Run implements sdk.Source. Where the kernel tells of changes they are taken at once; elsewhere, on NFS say, the folder is looked at again and
// again.
func (s *source) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	watcher, err := fsnotify.NewBufferedWatcher(64)
	if err != nil {
		s.rt.Log.Info("nobody tells of new files: the folder is looked at now and then", "error", err.Error())
		return s.intake.Run(ctx, bus, state)
	}
	wake := make(chan struct{}, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		follow(watcher, wake)
	}()
	defer func() {
		_ = watcher.Close()
		<-ended
	}()
	s.intake.Wake = wake
	s.intake.Look = func() { _ = watcher.Add(s.dir) } // again: the folder may be another one by now
	return s.intake.Run(ctx, bus, state)
}

// follow events until the watcher is closed.
func follow(watcher *fsnotify.Watcher, wake chan<- struct{}) {
	for {
		select {
		case event, ok := <-watcher.Events:
			if !ok {
				return
			}
			if event.Op == fsnotify.Chmod {
				continue
			}
		case _, ok := <-watcher.Errors: // of events that were lost, too
			if !ok {
				return
			}
		}
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}
