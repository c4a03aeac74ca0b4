package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/metip/metip/connectors/engine/enginetest"
)

// diskSize of each server's volume.
const diskSize = 512 << 20

// disk is a volume that can be full: a tmpfs in a mount namespace, which a process of its own keeps, so that it goes with the test however that
// ends.
type disk struct {
	keeper *enginetest.Process
	// path of the volume, as seen from outside of the namespace.
	path string
}

// newDisk at a folder; nil where this process may not make one.
func newDisk(t testing.TB, dir string) *disk {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("nsenter"); err != nil || os.Geteuid() != 0 {
		return nil
	}
	cmd := exec.Command("sh", "-c", fmt.Sprintf(`mount -t tmpfs -o size=%d tmpfs "$1" && touch "$1/mounted" && exec sleep infinity`, diskSize), "sh", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	d := &disk{keeper: enginetest.Run(t, "disk", cmd)}
	d.path = filepath.Join(fmt.Sprintf("/proc/%d/root", d.keeper.Pid()), dir)
	for range 100 {
		select {
		case <-d.keeper.Ended():
			return nil
		case <-time.After(50 * time.Millisecond):
		}
		if _, err := os.Stat(filepath.Join(d.path, "mounted")); err == nil {
			return d
		}
	}
	t.Fatal("the disk is not mounted")
	return nil
}

// command that sees the disk.
func (d *disk) command(args []string) []string {
	return append([]string{"nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", d.keeper.Pid()), "--"}, args...)
}
