package host

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

type mount struct{ point, kind string }

// mounts reads the mount table.
func mounts() []mount {
	content, _ := os.ReadFile("/proc/self/mounts")
	return parseMounts(string(content))
}

func parseMounts(content string) []mount {
	var out []mount
	for _, line := range strings.Split(content, "\n") {
		if f := strings.Fields(line); len(f) >= 3 {
			out = append(out, mount{point: unescape(f[1]), kind: f[2]})
		}
	}
	return out
}

// unescape undoes the kernel's \040 for a space and the like.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// MountsBelow lists mount points below a folder in the order in which they were made.
func MountsBelow(dir string) []string {
	var points []string
	for _, m := range mounts() {
		if m.point == dir || strings.HasPrefix(m.point, dir+"/") {
			points = append(points, m.point)
		}
	}
	return points
}

// UnmountBelow takes away every mount below a folder, the last one first.
func UnmountBelow(dir string) error {
	for _, point := range slices.Backward(MountsBelow(dir)) {
		if err := syscall.Unmount(point, syscall.MNT_DETACH); err != nil && err != syscall.EINVAL && err != syscall.ENOENT {
			return fmt.Errorf("unmount %s: %w", point, err)
		}
	}
	if left := MountsBelow(dir); len(left) > 0 {
		return fmt.Errorf("still mounted: %s", strings.Join(left, ", "))
	}
	return nil
}
