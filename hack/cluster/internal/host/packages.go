package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/metip/metip/hack/cluster/internal/process"
)

// Path is the search path of everything that the cluster runs: a bare environment often lacks the sbin folders.
const Path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// tools maps a command to the Debian package that has it.
var tools = []struct{ command, pkg string }{
	{"runc", "runc"}, {"iptables", "iptables"}, {"nft", "nftables"}, {"conntrack", "conntrack"},
	{"ip", "iproute2"}, {"mount", "mount"},
}

var cniFolders = []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"}

const cniPackage = "containernetworking-plugins"

// CNIBin is the folder with the CNI plugins; empty when there is none.
func CNIBin() string {
	for _, dir := range cniFolders {
		if executable(filepath.Join(dir, "bridge")) && executable(filepath.Join(dir, "host-local")) && executable(filepath.Join(dir, "loopback")) {
			return dir
		}
	}
	return ""
}

// MissingPackages lists the Debian packages whose commands this machine lacks.
func MissingPackages() []string {
	var missing []string
	for _, t := range tools {
		if lookup(t.command) == "" {
			missing = append(missing, t.pkg)
		}
	}
	if CNIBin() == "" {
		missing = append(missing, cniPackage)
	}
	if _, err := os.Stat(settingPath(bridgeFilter)); err != nil && lookup("modprobe") == "" {
		missing = append(missing, "kmod") // a kernel module has to be loaded
	}
	return missing
}

// InstallPackages installs what is missing and nothing else.
func InstallPackages(ctx context.Context, report func(format string, args ...any)) error {
	missing := MissingPackages()
	if len(missing) == 0 {
		return nil
	}
	list := strings.Join(missing, " ")
	if os.Geteuid() != 0 {
		return fmt.Errorf("these packages are missing: %s; install them as root: apt-get install --no-install-recommends %s", list, list)
	}
	if lookup("apt-get") == "" {
		return fmt.Errorf("these are missing: %s; this machine has no apt-get, so install what your distribution calls them", list)
	}
	report("installing %s", list)
	for _, args := range [][]string{{"update", "-q"}, append([]string{"install", "-q", "-y", "--no-install-recommends"}, missing...)} {
		cmd := exec.CommandContext(ctx, lookup("apt-get"), args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "PATH="+Path)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	if missing = MissingPackages(); len(missing) > 0 {
		return fmt.Errorf("still missing after apt-get install: %s", strings.Join(missing, " "))
	}
	return nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// lookup finds a command in Path, whatever the environment's own search path is.
func lookup(command string) string {
	for _, dir := range filepath.SplitList(Path) {
		if path := filepath.Join(dir, command); executable(path) {
			return path
		}
	}
	return ""
}

// run runs a command of the machine.
func run(ctx context.Context, command string, args ...string) (string, error) {
	path := lookup(command)
	if path == "" {
		return "", errors.New(command + " is not installed; run `make cluster-deps`")
	}
	return process.Command(ctx, path, args...)
}
