package selftest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/metip/metip/hack/cluster/internal/process"
)

func (s *suite) reachFromHost(ctx context.Context) error {
	var service struct{ Spec struct{ ClusterIP string } }
	if err := s.client.Get(ctx, namespace+"/services/server", &service); err != nil {
		return err
	}
	return process.Until(ctx, patience, "reaching the Service", func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+service.Spec.ClusterIP+"/", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		return expect(string(body), "hello from server")
	})
}

// reachFromPods asks from another pod on the same bridge and from the serving pod itself: both ways need the bridge
// to hand packets to the packet filter, in different manners.
func (s *suite) reachFromPods(ctx context.Context) error {
	for _, pod := range []string{"client", "server"} {
		for command, want := range map[string]string{
			"lookup server.selftest.svc.cluster.local": "[10.96.",
			"lookup server.selftest.svc":               "[10.96.",
			"get http://server.selftest/":              "hello from server",
			"lookup kubernetes.default":                "[10.96.0.1]",
			"get http://10.244.0.1:65535/":             "refused", // the machine itself is in reach
		} {
			out, err := s.kubectl(ctx, append([]string{"exec", pod, "--", "/probe"}, strings.Fields(command)...)...)
			if err != nil && want != "refused" {
				return err
			}
			if err := expect(out, want); err != nil {
				return fmt.Errorf("%s in pod %s: %w", command, pod, err)
			}
		}
	}
	return nil
}

func (s *suite) refuseUnknownName(ctx context.Context) error {
	out, err := s.kubectl(ctx, "exec", "client", "--", "/probe", "lookup", "nowhere.example.com")
	if err == nil {
		return fmt.Errorf("it resolves to %s", out)
	}
	return expect(out, "no such host")
}

func (s *suite) readLogs(ctx context.Context) error {
	out, err := s.kubectl(ctx, "logs", "server")
	if err != nil {
		return err
	}
	return expect(out, "serving on :8080")
}

func (s *suite) writeVolume(ctx context.Context) error {
	out, err := s.kubectl(ctx, "exec", "server", "--", "/probe", "write", "/data/file")
	if err != nil {
		return err
	}
	return expect(out, "uid=23456 gid=34567")
}

// recycle deletes the claim, whereupon its volume is released, and has it made anew.
func (s *suite) recycle(ctx context.Context) error {
	var claim struct{ Spec struct{ VolumeName string } }
	if err := s.client.Get(ctx, namespace+"/persistentvolumeclaims/data", &claim); err != nil {
		return err
	}
	files, err := filepath.Glob(s.layout.In("volumes", "*", "file"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("expected one volume with the file in it, found %v (%v)", files, err)
	}
	for _, path := range []string{"/pods/server", "/persistentvolumeclaims/data"} {
		if err := s.client.Delete(ctx, namespace+path); err != nil {
			return err
		}
	}
	volume := "/api/v1/persistentvolumes/" + claim.Spec.VolumeName
	if err := s.awaitPhase(ctx, volume, "Released"); err != nil {
		return err
	}
	if err := s.node.Up(ctx, ""); err != nil {
		return err
	}
	if _, err := os.Stat(files[0]); err == nil {
		return fmt.Errorf("%s is still there", files[0])
	}
	return s.awaitPhase(ctx, volume, "Available")
}

func (s *suite) awaitPhase(ctx context.Context, volume, want string) error {
	return process.Until(ctx, patience, "waiting for the volume to be "+want, func(ctx context.Context) error {
		var v struct{ Status struct{ Phase string } }
		if err := s.client.Get(ctx, volume, &v); err != nil {
			return err
		}
		if v.Status.Phase != want {
			return errors.New("it is " + v.Status.Phase)
		}
		return nil
	})
}

func expect(got, want string) error {
	if !strings.Contains(got, want) {
		return fmt.Errorf("expected %q in the answer, got %q", want, got)
	}
	return nil
}
