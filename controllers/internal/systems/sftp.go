package systems

import (
	"net"
	"path"
	"strconv"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
)

func sftpSource(c *v1alpha1.Connector) *System {
	if c.Spec.Source == nil || c.Spec.Source.SFTP == nil {
		return nil
	}
	options := c.Spec.Source.SFTP
	endpoint, port := sftpEndpoint(&options.Connection, string(options.Base), string(options.Folder), orStar(options.Pattern))
	return &System{
		Name: "sftp", Role: RoleSource, Options: options, Endpoint: endpoint, Ports: []int32{port},
		check: func(at *field.Path) field.ErrorList { return checkIntake(&options.FilesIntake, at) },
	}
}

func sftpSink(c *v1alpha1.Connector) *System {
	if c.Spec.Sink == nil || c.Spec.Sink.SFTP == nil {
		return nil
	}
	options := c.Spec.Sink.SFTP
	endpoint, port := sftpEndpoint(&options.Connection, string(options.Base), string(options.Write.Path))
	return &System{
		Name: "sftp", Role: RoleSink, Options: options, Endpoint: endpoint, Ports: []int32{port},
		check: func(at *field.Path) field.ErrorList {
			return CheckTemplate(at.Child("write", "path"), options.Write.Path)
		},
	}
}

func sftpOperation(o *v1alpha1.Operation) *Operation {
	if o.SFTP == nil {
		return nil
	}
	return &Operation{Name: "sftp", Options: o.SFTP, check: func(at *field.Path) field.ErrorList { return CheckTemplate(at.Child("path"), o.SFTP.Path) }}
}

func sftpEndpoint(c *v1alpha1.SFTPConnection, parts ...string) (endpoint string, port int32) {
	port = 22
	if c.Port != nil {
		port = *c.Port
	}
	return "sftp://" + net.JoinHostPort(c.Host, strconv.Itoa(int(port))) + path.Join("/", path.Join(parts...)), port
}
