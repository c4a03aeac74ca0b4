package image

import (
	"archive/tar"
	"encoding/json"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// writeArchive writes an OCI layout with a docker-save manifest.json beside it, over the same blobs.
func writeArchive(img v1.Image, imageName, out string) error {
	tag, err := name.NewTag(imageName, name.WithDefaultRegistry(""))
	if err != nil {
		return err
	}
	os.Remove(out + noteSuffix) //nolint:errcheck // it would speak of another tar file
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	f, err := os.Create(out + ".part")
	if err != nil {
		return err
	}
	defer os.Remove(out + ".part") //nolint:errcheck // renamed if all went well
	defer f.Close()
	if err := writeEntries(tar.NewWriter(f), img, tag); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(out+".part", out)
}

func writeEntries(w *tar.Writer, img v1.Image, tag name.Tag) error {
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	configDigest, err := img.ConfigName()
	if err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	index, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2,
		MediaType:     types.OCIImageIndex,
		Manifests: []v1.Descriptor{{
			MediaType: types.OCIManifestSchema1,
			Size:      int64(len(manifest)),
			Digest:    digest,
			Annotations: map[string]string{
				"io.containerd.image.name":          tag.Name(),
				"org.opencontainers.image.ref.name": tag.TagStr(),
			},
		}},
	})
	if err != nil {
		return err
	}
	save := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: blob(configDigest), RepoTags: []string{tag.Name()}}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, layer := range layers {
		path, err := writeLayer(w, layer)
		if err != nil {
			return err
		}
		save.Layers = append(save.Layers, path)
	}
	docker, err := json.Marshal([]any{save})
	if err != nil {
		return err
	}
	for _, entry := range []struct {
		path    string
		content []byte
	}{
		{blob(configDigest), config},
		{blob(digest), manifest},
		{"index.json", index},
		{"manifest.json", docker},
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
	} {
		if err := w.WriteHeader(header(tar.TypeReg, entry.path, 0o444, int64(len(entry.content)))); err != nil {
			return err
		}
		if _, err := w.Write(entry.content); err != nil {
			return err
		}
	}
	return w.Close()
}

func writeLayer(w *tar.Writer, layer v1.Layer) (string, error) {
	digest, err := layer.Digest()
	if err != nil {
		return "", err
	}
	size, err := layer.Size()
	if err != nil {
		return "", err
	}
	content, err := layer.Compressed()
	if err != nil {
		return "", err
	}
	defer content.Close()
	if err := w.WriteHeader(header(tar.TypeReg, blob(digest), 0o444, size)); err != nil {
		return "", err
	}
	_, err = io.Copy(w, content)
	return blob(digest), err
}

func blob(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }
