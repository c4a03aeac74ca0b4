package systems

import (
	"net/url"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/steps"
)

func httpPollSource(c *v1alpha1.Connector) *System {
	if c.Spec.Source == nil || c.Spec.Source.HTTPPoll == nil {
		return nil
	}
	options := c.Spec.Source.HTTPPoll
	return &System{
		Name: "httpPoll", Role: RoleSource, Options: options, Endpoint: withoutQuery(options.URL), Ports: urlPorts(options.URL),
		check: func(path *field.Path) field.ErrorList { return checkPoll(options, path) },
	}
}

// withoutQuery: what a query holds is of no interest in a status, and may be somebody's.
func withoutQuery(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	u.RawQuery = ""
	return u.String()
}

func checkPoll(s *v1alpha1.HTTPPollSource, path *field.Path) field.ErrorList {
	u, err := url.Parse(s.URL)
	if err != nil {
		return field.ErrorList{Invalid(path.Child("url"), s.URL, err)}
	}
	if s.Items == nil {
		return nil
	}
	at := path.Child("items")
	var errs field.ErrorList
	if _, err := steps.CompileBody(string(s.Items.List)); err != nil {
		errs = append(errs, Invalid(at.Child("list"), string(s.Items.List), err))
	}
	for _, e := range []struct {
		at   *field.Path
		text v1alpha1.Expression
	}{
		{at.Child("id"), s.Items.ID}, {at.Child("nextPage"), s.Items.NextPage},
		{at.Child("cursor", "item"), s.Items.Cursor.Item}, {at.Child("cursor", "answer"), s.Items.Cursor.Answer},
	} {
		if e.text == "" {
			continue
		}
		if _, err := steps.CompileValue(string(e.text)); err != nil {
			errs = append(errs, Invalid(e.at, string(e.text), err))
		}
	}
	if parameter := s.Items.Cursor.Parameter; parameter != "" && u.Query().Has(parameter) {
		errs = append(errs, field.Invalid(at.Child("cursor", "parameter"), parameter, "the query of url has it already: leave it out there, and write its first value into cursor.start"))
	}
	return errs
}
