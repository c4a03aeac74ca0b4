package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// interval is how often a condition is looked at that cannot be waited for.
const interval = 25 * time.Millisecond

// Until waits for a condition, looking at it often. The condition's last error says why it has not come about;
// an error that it wraps with Fatal ends the wait.
func Until(ctx context.Context, limit time.Duration, what string, condition func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	var last error
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		if f := (fatalError{}); errors.As(err, &f) {
			return fmt.Errorf("%s: %w", what, f.error)
		}
		if ctx.Err() == nil || last == nil {
			last = err // the error of a call that the deadline cut short says nothing
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: gave up after %s: %w", what, limit, last)
		case <-ticker.C:
		}
	}
}

type fatalError struct{ error }

func (f fatalError) Unwrap() error { return f.error }

// Fatal marks an error that waiting does not cure.
func Fatal(err error) error { return fatalError{err} }

// Spec is a server to start.
type Spec struct {
	Name string
	Path string
	Args []string
	Env  []string
	Log  string // output file, appended to
}

// Start starts a server in a session of its own, so that it survives this program and its terminal.
func Start(s Spec) (Record, error) {
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return Record{}, err
	}
	defer log.Close()
	cmd := exec.Command(s.Path, s.Args...)
	cmd.Env = s.Env
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return Record{}, fmt.Errorf("start %s: %w", s.Name, err)
	}
	go cmd.Wait() //nolint:errcheck // reaps it if it ends while this program runs; whoever waits for it asks Alive
	return Identify(s.Name, cmd.Process.Pid)
}

// Signal sends a signal to each process that is still the recorded one.
func Signal(signal syscall.Signal, records []Record) {
	for _, r := range records {
		if r.Alive() {
			syscall.Kill(r.PID, signal) //nolint:errcheck // it may end in between; the caller looks again
		}
	}
}

// Stop asks the processes to end, and ends those that have not after the grace.
func Stop(ctx context.Context, grace time.Duration, records []Record) error {
	gone := func(context.Context) error {
		var left []string
		for _, r := range records {
			if r.Alive() {
				left = append(left, r.String())
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("still running: %s", strings.Join(left, ", "))
		}
		return nil
	}
	if grace > 0 {
		Signal(syscall.SIGTERM, records)
		if Until(ctx, grace, "stop", gone) == nil {
			return nil
		}
	}
	Signal(syscall.SIGKILL, records)
	return Until(context.WithoutCancel(ctx), 5*time.Second, "kill", gone)
}

// Command runs a short-lived tool and returns what it printed; a failure carries that too.
func Command(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return text, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, text)
	}
	return text, nil
}
