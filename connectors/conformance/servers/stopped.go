package servers

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// stopWithin is how long threads may go on after SIGSTOP on a machine that is busy.
const stopWithin = 10 * time.Second

// AwaitStopped waits until no thread of the processes runs any more: the signal that stops a process is dealt with by one of its threads, when that
// gets to run, and the others work on until then.
func AwaitStopped(pids ...int) {
	for deadline := time.Now().Add(stopWithin); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		still := false
		for _, pid := range pids {
			still = still || runs(pid)
		}
		if !still {
			return
		}
	}
}

// runs tells whether a thread of a process is neither stopped nor gone.
func runs(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, file := range threads {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// The state follows the name, which is in brackets and may hold anything.
		if end := bytes.LastIndexByte(stat, ')'); end >= 0 && end+2 < len(stat) && !bytes.ContainsRune([]byte("TtZX"), rune(stat[end+2])) {
			return true
		}
	}
	return false
}
