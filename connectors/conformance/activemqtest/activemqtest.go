// Package activemqtest runs a real ActiveMQ broker for tests: Debian's, with STOMP, and one user. Persistent messages outlive a
// crash.
package activemqtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/metip/metip/connectors/conformance/servers"
)

// User of the broker, who may use queues whose names begin with `test.`, and the password.
const (
	User     = "custody"
	Password = "correct-horse-battery"
)

// Server is a running broker.
type Server struct {
	*servers.Process
	Host string
	// Port of STOMP, not encrypted.
	Port int
}

const broker = `<beans xmlns="http://www.springframework.org/schema/beans" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://www.springframework.org/schema/beans http://www.springframework.org/schema/beans/spring-beans-2.0.xsd
    http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" useJmx="false" brokerName="tests" dataDirectory="%[1]s/data">
    <persistenceAdapter><kahaDB directory="%[1]s/data/kahadb" journalMaxFileLength="16mb"/></persistenceAdapter>
    <plugins>
      <simpleAuthenticationPlugin><users><authenticationUser username="%[2]s" password="%[3]s" groups="users"/></users></simpleAuthenticationPlugin>
      <authorizationPlugin><map><authorizationMap><authorizationEntries>
        <authorizationEntry queue="test.&gt;" read="users" write="users" admin="users"/>
        <authorizationEntry queue="secret.&gt;" read="chiefs" write="chiefs" admin="chiefs"/>
        <authorizationEntry topic="&gt;" read="users" write="users" admin="users"/>
      </authorizationEntries></authorizationMap></map></authorizationPlugin>
    </plugins>
    <systemUsage><systemUsage>
      <memoryUsage><memoryUsage limit="64 mb"/></memoryUsage><storeUsage><storeUsage limit="512 mb"/></storeUsage><tempUsage><tempUsage limit="64 mb"/></tempUsage>
    </systemUsage></systemUsage>
    <transportConnectors><transportConnector name="stomp" uri="stomp://%[4]s:%[5]d"/></transportConnectors>
  </broker>
</beans>
`

// Start a broker on loopback.
func Start() (*Server, error) { return StartOn("127.0.0.1") }

// StartOn starts a broker on another address of this machine.
func StartOn(host string) (*Server, error) {
	jar, err := servers.Find("activemq", "/usr/share/activemq/bin/activemq.jar")
	if err != nil {
		return nil, err
	}
	java, err := servers.Find("default-jre-headless", "/usr/bin/java")
	if err != nil {
		return nil, err
	}
	ports, err := servers.Ports(1)
	if err != nil {
		return nil, err
	}
	s := &Server{Host: host, Port: ports[0]}
	folder, err := servers.Folder("activemq", "", map[string]string{"conf/x": "", "data/x": ""})
	if err != nil {
		return nil, err
	}
	config := filepath.Join(folder, "conf", "activemq.xml")
	if err := os.WriteFile(config, fmt.Appendf(nil, broker, folder, User, Password, s.Host, s.Port), 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	s.Process, err = servers.Start(servers.Spec{
		Name: "ActiveMQ", Folder: folder, Ready: s.ready,
		Command: []string{
			java, "-Xmx256m", "-Djava.io.tmpdir=" + folder, "-Dactivemq.home=/usr/share/activemq", "-Dactivemq.base=" + folder, "-Dactivemq.conf=" + filepath.Join(folder, "conf"),
			"-Dactivemq.data=" + filepath.Join(folder, "data"), "-jar", jar, "start", "xbean:file:" + config,
		},
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	return s, nil
}

// Address of STOMP.
func (s *Server) Address() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }

// ready when STOMP is listened for.
func (s *Server) ready() error {
	conn, err := net.DialTimeout("tcp", s.Address(), time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}
