package host

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func TestParseRoutes(t *testing.T) {
	const table = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0
eth0	000200C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
tun0	0000F40A	00000000	0001	0	0	0	0000FFFF	0	0	0
`
	routes := parseRoutes(table)
	want := []route{{"eth0", netip.MustParsePrefix("192.0.2.0/24")}, {"tun0", netip.MustParsePrefix("10.244.0.0/16")}}
	if len(routes) != len(want) {
		t.Fatalf("got %v, want %v", routes, want)
	}
	for i := range want {
		if routes[i] != want[i] {
			t.Errorf("got %v, want %v", routes[i], want[i])
		}
	}
}

func TestParseMounts(t *testing.T) {
	got := parseMounts("proc /proc proc rw 0 0\ntmpfs /a\\040b\\134c tmpfs rw 0 0\n\n")
	want := []mount{{"/proc", "proc"}, {`/a b\c`, "tmpfs"}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestResidueIsOnlyWhatNamesTheState(t *testing.T) {
	dir := t.TempDir()
	for name, target := range map[string]string{"ours.log": "/repo/out/cluster/pods/a.log", "others.log": "/var/log/pods/a.log", "alike.log": "/repo/out/cluster2/a.log"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	err := removeIf(dir, func(path string) bool {
		target, err := os.Readlink(path)
		return err == nil && below(target, "/repo/out/cluster")
	})
	if err != nil {
		t.Fatal(err)
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 2 || left[0].Name() != "alike.log" || left[1].Name() != "others.log" {
		t.Errorf("left: %v", left)
	}
}

func TestRestoreKernelWithoutASavedFileDoesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kernel.json")
	if err := RestoreKernel(path); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := RestoreKernel(path); err != nil {
		t.Errorf("a file that a start was cut short while writing: %v", err)
	}
}
