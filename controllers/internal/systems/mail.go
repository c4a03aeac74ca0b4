package systems

import (
	"net"
	"strconv"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
)

func mailSink(c *v1alpha1.Connector) *System {
	if c.Spec.Sink == nil || c.Spec.Sink.Mail == nil {
		return nil
	}
	options := c.Spec.Sink.Mail
	endpoint, port := mailEndpoint(&options.Connection)
	return &System{
		Name: "mail", Role: RoleSink, Options: options, Endpoint: endpoint, Ports: []int32{port},
		check: func(path *field.Path) field.ErrorList { return checkMail(&options.Send, path.Child("send")) },
	}
}

func mailOperation(o *v1alpha1.Operation) *Operation {
	if o.Mail == nil {
		return nil
	}
	return &Operation{Name: "mail", Options: o.Mail, check: func(path *field.Path) field.ErrorList { return checkMail(o.Mail, path) }}
}

func mailEndpoint(c *v1alpha1.MailConnection) (endpoint string, port int32) {
	scheme := "smtp://"
	switch c.Encryption {
	case v1alpha1.MailEncryptionImplicit:
		scheme, port = "smtps://", 465
	case v1alpha1.MailEncryptionDisabled:
		port = 25
	default:
		port = 587
	}
	if c.Port != nil {
		port = *c.Port
	}
	return scheme + net.JoinHostPort(c.Host, strconv.Itoa(int(port))), port
}

func checkMail(s *v1alpha1.MailSend, path *field.Path) field.ErrorList {
	errs := CheckTemplate(path.Child("from"), s.From)
	for _, list := range []struct {
		name  string
		texts []v1alpha1.Template
	}{{"to", s.To}, {"cc", s.Cc}, {"bcc", s.Bcc}} {
		for i, text := range list.texts {
			errs = append(errs, CheckTemplate(path.Child(list.name).Index(i), text)...)
		}
	}
	errs = append(errs, CheckTemplate(path.Child("subject"), s.Subject)...)
	errs = append(errs, CheckTemplate(path.Child("body"), s.Body)...)
	if s.Attachment != nil {
		errs = append(errs, CheckTemplate(path.Child("attachment", "fileName"), s.Attachment.FileName)...)
	}
	for _, name := range sortedKeys(s.Headers) {
		errs = append(errs, CheckTemplate(path.Child("headers").Key(name), s.Headers[name])...)
	}
	return errs
}
