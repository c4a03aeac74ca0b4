// Package rabbitmqtest runs a real RabbitMQ server for tests: Debian's, on loopback, with TLS by a CA of its own that asks every client of
// the TLS port for a certificate, and its management API. Confirmed messages of durable queues outlive a crash.
package rabbitmqtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	amqp10 "github.com/Azure/go-amqp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/metip/metip/connectors/conformance/certs"
	"github.com/metip/metip/connectors/conformance/servers"
)

// Administrator of the server, and the password.
const (
	Administrator = "administrator"
	Password      = "correct-horse-battery"
)

const (
	account = servers.Account("rabbitmq")
	// loopback is where management and Erlang's port mapper listen.
	loopback = "127.0.0.1"
)

// Server is a running RabbitMQ server.
type Server struct {
	*servers.Process
	// Host and Port of AMQP over TLS; PlainPort is without.
	Host            string
	Port, PlainPort int
	// STOMPPort of STOMP over TLS, with the plugin rabbitmq_stomp.
	STOMPPort int
	// CA of its certificate, and of those that clients must show.
	CA *certs.Authority

	epmd       *servers.Process
	management int
	// settle makes the server write down its queues, exchanges and users.
	settle func() error
}

// Start a server on loopback, with the plugins besides rabbitmq_management.
func Start(plugins ...string) (*Server, error) { return StartOn("127.0.0.1", plugins...) }

// StartOn starts a server that clients reach at another address of this machine.
func StartOn(host string, plugins ...string) (*Server, error) {
	program, err := servers.Find("rabbitmq-server", "/usr/lib/rabbitmq/bin/rabbitmq-server")
	if err != nil {
		return nil, err
	}
	epmd, err := exec.LookPath("epmd")
	if err != nil {
		return nil, fmt.Errorf("erlang's port mapper: %w", err)
	}
	ports, err := servers.Ports(6)
	if err != nil {
		return nil, err
	}
	s := &Server{Host: host, Port: ports[0], PlainPort: ports[1], management: ports[2], STOMPPort: ports[5]}
	mapper, distribution := ports[3], ports[4]
	if s.CA, err = certs.New("test queue CA"); err != nil {
		return nil, err
	}
	folder, err := s.prepare(plugins)
	if err != nil {
		return nil, err
	}
	node := "metip" + strconv.Itoa(s.Port) + "@localhost"
	s.settle = func() error {
		call, err := servers.Find("erlang-base", "/usr/lib/erlang/erts-*/bin/erl_call")
		if err != nil {
			return err
		}
		cookie, err := os.ReadFile(filepath.Join(folder, ".erlang.cookie"))
		if err != nil {
			return err
		}
		command := exec.Command(call, "-sname", node, "-c", string(cookie), "-a", "mnesia sync_log []")
		command.Env = []string{"ERL_EPMD_PORT=" + strconv.Itoa(mapper), "HOME=" + folder}
		output, err := command.CombinedOutput()
		if err == nil && string(output) != "ok" {
			err = fmt.Errorf("it answers %q", output)
		}
		return err
	}
	// A port mapper of the test's own, which ends with it: what Erlang starts by itself would stay.
	s.epmd, err = servers.Start(servers.Spec{
		Name: "epmd", Folder: folder, Account: account, Command: []string{epmd, "-port", strconv.Itoa(mapper), "-address", loopback}, Ready: func() error { return nil },
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	s.Process, err = servers.Start(servers.Spec{
		Name: "RabbitMQ", Folder: folder, Account: account, Command: []string{program}, Ready: s.ready, Halt: syscall.SIGTERM,
		Env: []string{
			"RUNNING_UNDER_SYSTEMD=1", // the script then becomes the server, instead of waiting for it
			"HOME=" + folder, "ERL_EPMD_PORT=" + strconv.Itoa(mapper), "ERL_EPMD_ADDRESS=" + loopback, "RABBITMQ_NODENAME=" + node,
			"RABBITMQ_DIST_PORT=" + strconv.Itoa(distribution), "RABBITMQ_CONFIG_FILE=" + filepath.Join(folder, "rabbitmq.conf"), "RABBITMQ_CONF_ENV_FILE=/dev/null",
			"RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(folder, "plugins"), "RABBITMQ_MNESIA_BASE=" + filepath.Join(folder, "data"), "RABBITMQ_LOGS=-",
			"RABBITMQ_LOG_BASE=" + folder, "RABBITMQ_GENERATED_CONFIG_DIR=" + folder, "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+sbwt none",
		},
	})
	if err != nil {
		s.epmd.Kill()
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	return s, nil
}

func (s *Server) prepare(plugins []string) (string, error) {
	cert, key, err := s.CA.Issue(time.Now().Add(12*time.Hour), "localhost", s.Host)
	if err != nil {
		return "", err
	}
	enabled := "[rabbitmq_management"
	for _, plugin := range plugins {
		enabled += "," + plugin
	}
	folder, err := servers.Folder("rabbitmq", account, map[string]string{"ca.crt": s.CA.PEM, "server.crt": cert, "server.key": key, "plugins": enabled + "].\n", "rabbitmq.conf": "", "data/x": ""})
	if err != nil {
		return "", err
	}
	file := func(name string) string { return filepath.Join(folder, name) }
	conf := ""
	if slices.Contains(plugins, "rabbitmq_stomp") {
		conf = fmt.Sprintf("stomp.listeners.tcp = none\nstomp.listeners.ssl.1 = %s:%d\n", s.Host, s.STOMPPort)
	}
	if slices.Contains(plugins, "rabbitmq_auth_mechanism_ssl") { // EXTERNAL: the common name of a client's certificate is a user
		conf += "auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\nssl_cert_login_from = common_name\n"
	}
	if slices.Contains(plugins, "rabbitmq_amqp1_0") {
		conf += "amqp1_0.default_user = " + Administrator + "\n" // ANONYMOUS
	}
	return folder, os.WriteFile(file("rabbitmq.conf"), fmt.Appendf([]byte(conf), `listeners.tcp.default = %[1]s:%[2]d
listeners.ssl.default = %[1]s:%[3]d
ssl_options.cacertfile = %[4]s
ssl_options.certfile = %[5]s
ssl_options.keyfile = %[6]s
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
management.tcp.ip = %[10]s
management.tcp.port = %[7]d
default_user = %[8]s
default_pass = %[9]s
max_message_size = 8388608
log.console = true
log.console.level = warning
disk_free_limit.absolute = 50MB
`, s.Host, s.PlainPort, s.Port, file("ca.crt"), file("server.crt"), file("server.key"), s.management, Administrator, Password, loopback), 0o600)
}

// Kill crashes the server. What it knows of queues, exchanges and users it writes down a moment later than it says so, which is
// none of a test's business: they are made safe before. Messages are not.
func (s *Server) Kill() {
	if err := s.settle(); err != nil {
		fmt.Fprintln(os.Stderr, "RabbitMQ does not write down its definitions:", err)
	}
	s.Process.Kill()
}

// Close ends the server and removes its data.
func (s *Server) Close() {
	s.Process.Close()
	s.epmd.Kill()
}

// ready when AMQP and the management API answer.
func (s *Server) ready() error {
	conn, err := amqp.Dial(s.URL("/"))
	if err != nil {
		return err
	}
	if err := conn.Close(); err != nil {
		return err
	}
	return s.api(http.MethodGet, "/api/overview", nil, nil)
}

// URL of a virtual host for the administrator, not encrypted.
func (s *Server) URL(vhost string) string {
	return fmt.Sprintf("amqp://%s:%s@%s:%d/%s", Administrator, Password, s.Host, s.PlainPort, url.PathEscape(vhost))
}

// Client issues a certificate for a client.
func (s *Server) Client(t testing.TB) (certPEM, keyPEM string) {
	t.Helper()
	certPEM, keyPEM, err := s.CA.Issue(time.Now().Add(time.Hour), "client")
	if err != nil {
		t.Fatal(err)
	}
	return certPEM, keyPEM
}

// API of management: path without the host, and a body that is encoded as JSON, unless it is nil. The answer is decoded into into.
func (s *Server) API(t testing.TB, method, path string, body, into any) {
	t.Helper()
	if err := s.api(method, path, body, into); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) api(method, path string, body, into any) error {
	var content io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(raw)
	}
	request, err := http.NewRequest(method, fmt.Sprintf("http://%s:%d%s", loopback, s.management, path), content)
	if err != nil {
		return err
	}
	request.SetBasicAuth(Administrator, Password)
	client := http.Client{Timeout: 30 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, raw)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(raw, into)
}

// Account makes a virtual host of this name, and a user of this name who may do everything in it.
func (s *Server) Account(t testing.TB, name, password string) {
	t.Helper()
	s.API(t, http.MethodPut, "/api/vhosts/"+name, map[string]any{}, nil)
	s.User(t, name, password)
	for _, user := range []string{name, Administrator} {
		s.API(t, http.MethodPut, "/api/permissions/"+name+"/"+user, map[string]any{"configure": ".*", "write": ".*", "read": ".*"}, nil)
	}
}

// User makes a user, or sets another password.
func (s *Server) User(t testing.TB, name, password string) {
	t.Helper()
	s.API(t, http.MethodPut, "/api/users/"+name, map[string]any{"password": password, "tags": ""}, nil)
}

// Channel of the administrator, until the end of the test or of the server, on a connection of its own.
func (s *Server) Channel(t testing.TB, vhost string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(s.URL(vhost))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	channel, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return channel
}

// AMQP10 is a session of the administrator in AMQP 1.0 until the end of the test or of the server, with the plugin rabbitmq_amqp1_0. The host of a
// virtual host is vhost: and its name.
func (s *Server) AMQP10(t testing.TB, vhost string) *amqp10.Session {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, err := amqp10.Dial(ctx, fmt.Sprintf("amqp://%s:%d", s.Host, s.PlainPort), &amqp10.ConnOptions{HostName: "vhost:" + vhost, SASLType: amqp10.SASLTypePlain(Administrator, Password)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	session, err := conn.NewSession(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	return session
}

// Messages that wait in a queue; those that a consumer has are not among them.
func (s *Server) Messages(t testing.TB, vhost, queue string) int {
	t.Helper()
	channel := s.Channel(t, vhost)
	defer func() { _ = channel.Close() }()
	q, err := channel.QueueDeclarePassive(queue, false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return q.Messages
}
