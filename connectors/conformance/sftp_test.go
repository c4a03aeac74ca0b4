package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/conformance/sftptest"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// fileServer is started by the first test that needs it.
var fileServer struct {
	once    sync.Once
	server  *sftptest.Server
	keys    [2]sftptest.Key
	err     error
	folders atomic.Int64
}

func stopSFTP() {
	if fileServer.server != nil {
		fileServer.server.Close()
	}
}

// remoteFiles is a folder of the server's, seen from the machine that it is on.
type remoteFiles struct {
	*sftptest.Server
	fileVolume
}

func newRemoteFiles(t *testing.T) remoteFiles {
	t.Helper()
	fileServer.once.Do(func() {
		for i := range fileServer.keys {
			var err error
			fileServer.keys[i], err = sftptest.NewKey()
			fileServer.err = errors.Join(fileServer.err, err)
		}
		if fileServer.err == nil {
			fileServer.server, fileServer.err = sftptest.Start(fileServer.keys[0])
		}
	})
	if fileServer.err != nil {
		t.Fatal(fileServer.err)
	}
	s := fileServer.server
	if !s.Running() {
		if err := s.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Authorize(fileServer.keys[0]); err != nil {
		t.Fatal(err)
	}
	r := remoteFiles{s, fileVolume{dir: filepath.Join(s.Files, strconv.FormatInt(fileServer.folders.Add(1), 10))}}
	r.in = filepath.Join(r.dir, "in")
	r.restore(t)
	return r
}

func (r remoteFiles) connection() map[string]any {
	return map[string]any{"host": r.Host, "port": r.Port, "hostKeys": []string{r.HostKey}}
}

func (r remoteFiles) config() contract.Config {
	return contract.Config{Auth: contract.Auth{Kind: contract.AuthSSH, User: r.User, SecretName: "files-key", Keys: []string{"ssh-privatekey"}}}
}

func (r remoteFiles) endpoint() string { return fmt.Sprintf("sftp://%s:%d", r.Host, r.Port) }

func (r remoteFiles) start(t *testing.T) {
	t.Helper()
	if err := r.Resume(); err != nil {
		t.Fatal(err)
	}
}

func (r remoteFiles) rotate(t *testing.T) map[string]string {
	t.Helper()
	if err := r.Authorize(fileServer.keys[1]); err != nil {
		t.Fatal(err)
	}
	return map[string]string{contract.FileSSHKey: fileServer.keys[1].Private}
}

func wrongKey(t *testing.T) map[string]string {
	t.Helper()
	other, err := sftptest.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{contract.FileSSHKey: other.Private}
}

func newSFTPSource(t *testing.T) *PullHarness {
	t.Helper()
	r := newRemoteFiles(t)
	return &PullHarness{
		System: "sftp",
		Options: fakes.JSON(t, map[string]any{
			"connection": r.connection(), "base": r.dir, "folder": "in", "stableFor": "0s", "rescanEvery": "1s", "records": map[string]any{"lines": map[string]any{}},
		}),
		Config: r.config(), Secrets: map[string]string{contract.FileSSHKey: fileServer.keys[0].Private}, WrongCredentials: wrongKey(t),
		Endpoint: r.endpoint(), Object: "in", Window: 512, Ordered: true,
		Put: func(t *testing.T, from, to, size int) {
			t.Helper()
			var content bytes.Buffer
			for i := from; i < to; i++ {
				fmt.Fprintln(&content, record(i, size))
			}
			r.put(t, fmt.Sprintf("%06d.jsonl", from), content.Bytes())
		},
		Left: func(t *testing.T) int {
			t.Helper()
			left := 0
			for _, content := range r.files(t) {
				left += bytes.Count(content, []byte("\n"))
			}
			return left
		},
		Stop: func(*testing.T) { r.Kill() }, Start: r.start, Remove: r.remove, Restore: r.restore, Rotate: r.rotate,
	}
}

func TestSFTPSource(t *testing.T) { PullSources(t, newSFTPSource) }

func TestSFTPSink(t *testing.T) {
	Sinks(t, func(t *testing.T) *SinkHarness {
		t.Helper()
		r := newRemoteFiles(t)
		return &SinkHarness{
			System: "sftp",
			Options: fakes.JSON(t, map[string]any{
				"connection": r.connection(), "base": r.dir, "write": map[string]any{"path": "out/{has(data.poison) ? data.missing : string(data.id)}.json"},
			}),
			Config: r.config(), Secrets: map[string]string{contract.FileSSHKey: fileServer.keys[0].Private}, WrongCredentials: wrongKey(t),
			CheckKnowsCredentials: true, Endpoint: r.endpoint(), Good: message,
			Poison: func(i int) *sdk.Delivery {
				return fakes.Delivery(strconv.Itoa(i), fmt.Sprintf(`{"id":%d,"poison":true}`, i))
			},
			Stop: func(*testing.T) { r.Kill() }, Start: r.start, Rotate: r.rotate,
			Slow: func(*testing.T) func() { r.Freeze(); return r.Thaw },
			Effects: func(t *testing.T) map[int]int {
				t.Helper()
				entries, err := os.ReadDir(filepath.Join(r.dir, "out"))
				if err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
				effects := map[int]int{}
				for _, e := range entries {
					if n, err := strconv.Atoi(strings.TrimSuffix(e.Name(), ".json")); err == nil {
						effects[n]++
					}
				}
				return effects
			},
		}
	})
}
