package node

import (
	"context"
	"fmt"
	"os"

	"github.com/metip/metip/hack/cluster/internal/kube"
	"github.com/metip/metip/hack/cluster/internal/layout"
	"github.com/metip/metip/hack/cluster/internal/render"
)

// Volumes are made beforehand: Kubernetes itself can provision host-path volumes only, whose folders stay root's,
// whereas local ones honour fsGroup. A volume whose claim was deleted is Released and is not bound again by itself;
// there are enough for a test run, and `cluster up` on the running cluster empties and re-makes the released ones.

func makeVolumes(ctx context.Context, l layout.Layout, client *kube.Client) error {
	for i := 1; i <= layout.Volumes; i++ {
		if err := makeVolume(ctx, l, client, i); err != nil {
			return err
		}
	}
	return nil
}

func makeVolume(ctx context.Context, l layout.Layout, client *kube.Client, i int) error {
	if err := os.MkdirAll(l.VolumeDir(i), 0o755); err != nil {
		return err
	}
	manifest, err := render.Volume(l, i)
	if err != nil {
		return err
	}
	return client.Apply(ctx, manifest)
}

// volumePhases sorts the cluster's volumes by their phase.
func volumePhases(ctx context.Context, client *kube.Client) (map[string][]string, error) {
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct{ Phase string }
		}
	}
	if err := client.Get(ctx, "/api/v1/persistentvolumes", &list); err != nil {
		return nil, err
	}
	phases := map[string][]string{}
	for _, v := range list.Items {
		phases[v.Status.Phase] = append(phases[v.Status.Phase], v.Metadata.Name)
	}
	return phases, nil
}

// recycleVolumes empties the volumes whose claims are gone and makes them available again.
func recycleVolumes(ctx context.Context, l layout.Layout, client *kube.Client) (int, error) {
	phases, err := volumePhases(ctx, client)
	if err != nil {
		return 0, err
	}
	released := map[string]bool{}
	for _, name := range append(phases["Released"], phases["Failed"]...) {
		released[name] = true
	}
	count := 0
	for i := 1; i <= layout.Volumes; i++ {
		name := layout.VolumeName(i)
		if !released[name] {
			continue
		}
		path := "/api/v1/persistentvolumes/" + name
		if err := client.Delete(ctx, path); err != nil {
			return count, err
		}
		if err := awaitDeleted(ctx, client, path); err != nil {
			return count, err
		}
		if err := os.RemoveAll(l.VolumeDir(i)); err != nil {
			return count, fmt.Errorf("empty volume %s: %w", name, err)
		}
		if err := makeVolume(ctx, l, client, i); err != nil {
			return count, err
		}
		count++
	}
	return count, nil
}
