package systems

import (
	"net"
	"net/url"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/steps"
)

// catalog has an entry for each system and role; it answers nil for other Connectors.
var catalog = []func(*v1alpha1.Connector) *System{
	amqp10Source, customSource, filesSource, generatorSource, httpSource, httpPollSource, kafkaSource, mqttSource, natsSource, postgresSource, rabbitMQSource, scheduleSource, sftpSource, soapSource, stompSource,
	amqp10Sink, customSink, filesSink, httpSink, kafkaSink, logSink, mailSink, mqttSink, natsSink, postgresSink, rabbitMQSink, sftpSink, soapSink, stompSink,
	customService, httpService, natsService, postgresService, rabbitMQService, soapService, stubService,
}

// operations has an entry for each system whose operation a destination can replace.
var operations = []func(*v1alpha1.Operation) *Operation{amqp10Operation, customOperation, filesOperation, httpOperation, kafkaOperation, mailOperation, mqttOperation, natsOperation, postgresOperation, rabbitMQOperation, sftpOperation, soapOperation, stompOperation}

func httpSource(c *v1alpha1.Connector) *System {
	if c.Spec.Source == nil || c.Spec.Source.HTTP == nil {
		return nil
	}
	options := c.Spec.Source.HTTP.DeepCopy()
	options.AllowFrom = nil // it becomes a NetworkPolicy, and its change concerns no pod
	return &System{Name: "http", Role: RoleSource, Options: options, Listens: true, AllowFrom: c.Spec.Source.HTTP.AllowFrom, Endpoint: listenerEndpoint(c, options.Path)}
}

func listenerEndpoint(c *v1alpha1.Connector, path string) string {
	scheme := "http"
	if c.Spec.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + c.Name + "." + c.Namespace + ".svc" + path
}

func scheduleSource(c *v1alpha1.Connector) *System {
	if c.Spec.Source == nil || c.Spec.Source.Schedule == nil {
		return nil
	}
	options := c.Spec.Source.Schedule
	return &System{
		Name: "schedule", Role: RoleSource, Options: options, Endpoint: options.Cron + " " + options.TimeZone,
		check: func(path *field.Path) field.ErrorList {
			if _, err := steps.ParseSchedule(options.Cron, options.TimeZone); err != nil {
				return field.ErrorList{field.Invalid(path.Child("cron"), options.Cron, err.Error())}
			}
			return nil
		},
	}
}

func httpSink(c *v1alpha1.Connector) *System {
	if c.Spec.Sink == nil || c.Spec.Sink.HTTP == nil {
		return nil
	}
	options := c.Spec.Sink.HTTP
	return &System{
		Name: "http", Role: RoleSink, Options: options, Endpoint: options.URL, Ports: urlPorts(options.URL),
		check: func(path *field.Path) field.ErrorList { return checkRequest(options.Request, path.Child("request")) },
	}
}

// serverPorts are those of servers that a client connects to: scheme://host:port, by default the scheme's.
func serverPorts(servers []string, plain string, plainPort, securePort int32) []int32 {
	var ports []int32
	for _, server := range servers {
		port := securePort
		if u, err := url.Parse(server); err == nil {
			if u.Scheme == plain {
				port = plainPort
			}
			if n, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
				port = int32(n)
			}
		}
		if !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
	}
	return ports
}

func urlPorts(raw string) []int32 {
	u, err := url.Parse(raw)
	if err != nil {
		return nil
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
		return []int32{int32(port)}
	}
	if u.Scheme == "https" {
		return []int32{443}
	}
	return []int32{80}
}

func httpOperation(o *v1alpha1.Operation) *Operation {
	if o.HTTP == nil {
		return nil
	}
	return &Operation{Name: "http", Options: o.HTTP, check: func(path *field.Path) field.ErrorList { return checkRequest(o.HTTP, path) }}
}

func checkRequest(r *v1alpha1.HTTPRequest, path *field.Path) field.ErrorList {
	if r == nil {
		return nil
	}
	errs := CheckTemplate(path.Child("path"), r.Path)
	for _, name := range sortedKeys(r.Headers) {
		errs = append(errs, CheckTemplate(path.Child("headers").Key(name), r.Headers[name])...)
	}
	return errs
}

func postgresSink(c *v1alpha1.Connector) *System {
	if c.Spec.Sink == nil || c.Spec.Sink.Postgres == nil {
		return nil
	}
	options := c.Spec.Sink.Postgres
	endpoint, port := postgresEndpoint(&options.Connection)
	return &System{
		Name: "postgres", Role: RoleSink, Options: options, Ports: []int32{port}, Endpoint: endpoint,
		check: func(path *field.Path) field.ErrorList { return checkWrite(&options.Write, path.Child("write")) },
	}
}

func postgresSource(c *v1alpha1.Connector) *System {
	if c.Spec.Source == nil || c.Spec.Source.Postgres == nil {
		return nil
	}
	options := c.Spec.Source.Postgres
	endpoint, port := postgresEndpoint(&options.Connection)
	return &System{Name: "postgres", Role: RoleSource, Options: options, Ports: []int32{port}, Endpoint: endpoint}
}

func postgresService(c *v1alpha1.Connector) *System {
	if c.Spec.Service == nil || c.Spec.Service.Postgres == nil {
		return nil
	}
	options := c.Spec.Service.Postgres
	endpoint, port := postgresEndpoint(&options.Connection)
	return &System{
		Name: "postgres", Role: RoleService, Options: options, Ports: []int32{port}, Endpoint: endpoint,
		check: func(path *field.Path) field.ErrorList {
			errs := checkOpenAPI(c.Spec.Service)
			for i, expression := range options.Parameters {
				if _, err := steps.CompileValue(string(expression)); err != nil {
					errs = append(errs, Invalid(path.Child("parameters").Index(i), string(expression), err))
				}
			}
			return errs
		},
	}
}

func postgresEndpoint(c *v1alpha1.PostgresConnection) (endpoint string, port int32) {
	port = 5432
	if c.Port != nil {
		port = *c.Port
	}
	return "postgres://" + net.JoinHostPort(c.Host, strconv.Itoa(int(port))) + "/" + c.Database, port
}

func postgresOperation(o *v1alpha1.Operation) *Operation {
	if o.Postgres == nil {
		return nil
	}
	return &Operation{Name: "postgres", Options: o.Postgres, check: func(path *field.Path) field.ErrorList { return checkWrite(o.Postgres, path) }}
}

func checkWrite(w *v1alpha1.PostgresWrite, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, column := range sortedKeys(w.Columns) {
		if _, err := steps.CompileValue(string(w.Columns[column])); err != nil {
			errs = append(errs, Invalid(path.Child("columns").Key(column), string(w.Columns[column]), err))
		}
	}
	for _, argument := range sortedKeys(w.Arguments) {
		if _, err := steps.CompileValue(string(w.Arguments[argument])); err != nil {
			errs = append(errs, Invalid(path.Child("arguments").Key(argument), string(w.Arguments[argument]), err))
		}
	}
	return errs
}

// CheckTemplate compiles a text with expressions in braces.
func CheckTemplate(path *field.Path, text v1alpha1.Template) field.ErrorList {
	if text == "" {
		return nil
	}
	if _, err := steps.CompileTemplate(string(text)); err != nil {
		return field.ErrorList{Invalid(path, string(text), err)}
	}
	return nil
}

// CheckFilter compiles a CEL condition.
func CheckFilter(path *field.Path, text v1alpha1.Expression) field.ErrorList {
	if text == "" {
		return nil
	}
	if _, err := steps.CompileFilter(string(text)); err != nil {
		return field.ErrorList{Invalid(path, string(text), err)}
	}
	return nil
}

// Invalid shows the beginning of the text, and the position of the error in its detail.
func Invalid(path *field.Path, text string, err error) *field.Error {
	const shown = 120
	if len(text) > shown {
		text = text[:shown] + "..."
	}
	return field.Invalid(path, text, err.Error())
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
