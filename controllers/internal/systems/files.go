package systems

import (
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/steps"
)

// minRotation is the least size of a file that is rotated by size.
const minRotation = 1 << 10

// Volume that a Connector's pods mount; nil for none.
func Volume(c *v1alpha1.Connector) *v1alpha1.FilesVolume {
	switch {
	case c.Spec.Source != nil && c.Spec.Source.Files != nil:
		return &c.Spec.Source.Files.Volume
	case c.Spec.Sink != nil && c.Spec.Sink.Files != nil:
		return &c.Spec.Sink.Files.Volume
	default:
		return nil
	}
}

func filesSource(c *v1alpha1.Connector) *System {
	if c.Spec.Source == nil || c.Spec.Source.Files == nil {
		return nil
	}
	options := c.Spec.Source.Files
	return &System{
		Name: "files", Role: RoleSource, Options: options, Endpoint: filesEndpoint(&options.Volume, string(options.Folder)+"/"+orStar(options.Pattern)),
		check: func(at *field.Path) field.ErrorList { return checkIntake(&options.FilesIntake, at) },
	}
}

func checkIntake(i *v1alpha1.FilesIntake, at *field.Path) field.ErrorList {
	if _, err := path.Match(i.Pattern, "x"); err != nil {
		return field.ErrorList{field.Invalid(at.Child("pattern"), i.Pattern, "a [ is not closed: write [[] for the character itself")}
	}
	if x := i.Records.XML; x != nil {
		if err := steps.CheckElements(append([]string{x.Element}, x.Arrays...)); err != nil {
			return field.ErrorList{field.Invalid(at.Child("records", "xml"), x.Element, err.Error())}
		}
	}
	return nil
}

func orStar(pattern string) string {
	if pattern == "" {
		return "*"
	}
	return pattern
}

func filesSink(c *v1alpha1.Connector) *System {
	if c.Spec.Sink == nil || c.Spec.Sink.Files == nil {
		return nil
	}
	options := c.Spec.Sink.Files
	written := ""
	switch {
	case options.Write.File != nil:
		written = string(options.Write.File.Path)
	case options.Write.Append != nil:
		written = string(options.Write.Append.Path)
	}
	return &System{
		Name: "files", Role: RoleSink, Options: options, Endpoint: filesEndpoint(&options.Volume, written),
		check: func(at *field.Path) field.ErrorList { return checkFilesWrite(&options.Write, at.Child("write")) },
	}
}

func filesEndpoint(v *v1alpha1.FilesVolume, name string) string {
	return "volume " + v.ClaimName + " /" + strings.TrimPrefix(name, "/")
}

func filesOperation(o *v1alpha1.Operation) *Operation {
	if o.Files == nil {
		return nil
	}
	return &Operation{Name: "files", Options: o.Files, check: func(at *field.Path) field.ErrorList { return checkFilesWrite(o.Files, at) }}
}

func checkFilesWrite(w *v1alpha1.FilesWrite, at *field.Path) field.ErrorList {
	switch {
	case w.File != nil:
		return CheckTemplate(at.Child("file", "path"), w.File.Path)
	case w.Append != nil:
		errs := CheckTemplate(at.Child("append", "path"), w.Append.Path)
		if r := w.Append.Rotate; r != nil && r.Size != nil && r.Size.Value() < minRotation {
			errs = append(errs, field.Invalid(at.Child("append", "rotate", "size"), r.Size.String(), "it must be at least 1Ki, for example 64Mi"))
		}
		return errs
	default:
		return nil
	}
}
