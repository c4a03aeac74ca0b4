package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

const (
	// secretsPoll looks again by itself: watches can be missed, and may not be had where too many files are open.
	secretsPoll   = 10 * time.Second
	secretsSettle = 50 * time.Millisecond
	maxSecretSize = 1 << 20
)

// secretFiles are those that a system may read.
var secretFiles = []string{
	contract.FileUsername, contract.FilePassword, contract.FileToken, contract.FileHMACKey, contract.FileSSHKey, contract.FileCA, contract.FileTLSCert, contract.FileTLSKey,
}

// secrets are the mounted files of a system, by the name of the file. A file that vanishes keeps its last good value.
type secrets struct {
	dir    string
	config *contract.Config
	log    *slog.Logger

	mu      sync.RWMutex
	values  map[string][]byte
	version uint64
	changed chan struct{}
}

func newSecrets(dir string, c *contract.Config, log *slog.Logger) *secrets {
	s := &secrets{dir: dir, config: c, log: log, values: map[string][]byte{}, changed: make(chan struct{})}
	s.load()
	return s
}

// Get implements sdk.Secrets.
func (s *secrets) Get(file string) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if v, ok := s.values[file]; ok {
		return v, nil
	}
	return nil, sdk.Unavailable(contract.ReasonCredentialsMissing, fmt.Errorf("%s is missing, or not mounted yet: the Secret must exist in namespace %s and have that key",
		s.origin(file), s.config.Connector.Namespace))
}

// Version implements sdk.Secrets.
func (s *secrets) Version() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.version
}

// Changed implements sdk.Secrets.
func (s *secrets) Changed() <-chan struct{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.changed
}

// origin names the user's Secret and key that a file comes from.
func (s *secrets) origin(file string) string {
	tls, auth := s.config.TLS, s.config.Auth
	switch file {
	case contract.FileCA:
		if tls != nil && tls.CAFrom != "" {
			return tls.CAFrom
		}
	case contract.FileTLSCert, contract.FileTLSKey:
		if tls != nil && tls.CertificateFrom != "" {
			return tls.CertificateFrom + " key " + file
		}
	}
	if auth.SecretName == "" {
		return "file " + file
	}
	for _, key := range auth.Keys {
		if key == file {
			return "secret " + auth.SecretName + " key " + key
		}
	}
	if len(auth.Keys) == 1 {
		return "secret " + auth.SecretName + " key " + auth.Keys[0]
	}
	return "secret " + auth.SecretName + " (" + file + ")"
}

// load reads the files and says whether anything changed.
func (s *secrets) load() bool {
	fresh := map[string][]byte{}
	for _, file := range secretFiles {
		v, err := readSecret(filepath.Join(s.dir, file))
		switch {
		case err == nil:
			fresh[file] = v
		case !errors.Is(err, os.ErrNotExist):
			s.log.Warn("a mounted file cannot be read", "file", file, "error", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := false
	for file, v := range fresh {
		if old, ok := s.values[file]; !ok || !bytes.Equal(old, v) {
			s.values[file] = v
			changed = true
		}
	}
	if changed {
		s.version++
		close(s.changed)
		s.changed = make(chan struct{})
	}
	return changed
}

// readSecret reads a file without a trailing line end. An empty file counts as missing.
func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	v, err := io.ReadAll(io.LimitReader(f, maxSecretSize))
	if err != nil {
		return nil, err
	}
	v = bytes.TrimSuffix(bytes.TrimSuffix(v, []byte("\n")), []byte("\r"))
	if len(v) == 0 {
		return nil, os.ErrNotExist
	}
	return v, nil
}

// watch the folder until the context ends. The kubelet swaps the symbolic link ..data, so that the folder is what is watched.
func (s *secrets) watch(ctx context.Context) {
	var events chan fsnotify.Event
	var errs chan error
	w, err := fsnotify.NewWatcher()
	if err == nil {
		defer func() { _ = w.Close() }()
		if err = w.Add(s.dir); err == nil {
			events, errs = w.Events, w.Errors
			s.load() // what changed before the watch began
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Warn("the mounted files are not watched, only looked at now and then", "error", err)
	}
	tick := time.NewTicker(secretsPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-events:
			if strings.HasPrefix(filepath.Base(e.Name), ".") && filepath.Base(e.Name) != "..data" {
				continue
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(secretsSettle):
			}
		case <-errs:
		case <-tick.C:
		}
		if s.load() {
			s.log.Info("the mounted files have changed", "version", s.Version())
		}
	}
}
