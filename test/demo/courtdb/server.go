package courtdb

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// ServiceName is the name that pods find the database by; the server's certificate carries it.
const ServiceName = "court-db"

// Server is a PostgreSQL server on this machine.
type Server struct {
	// Host and Port that pods reach it at.
	Host string
	Port int
	// CA is the PEM certificate of the authority that signed the server's certificate.
	CA string

	bin, dir  string
	superuser string
	password  string
	as        *syscall.Credential
	dial      pgconn.DialFunc
}

// Remote is a server that somebody else runs, reached through dial; caFile holds the authority's certificate.
func Remote(host string, port int, password, caFile string, dial pgconn.DialFunc) (*Server, error) {
	ca, err := os.ReadFile(caFile)
	return &Server{Host: host, Port: port, CA: string(ca), dir: filepath.Dir(caFile), superuser: superuser, password: password, dial: dial}, err
}

// Options of a Server.
type Options struct {
	// Dir holds everything of the server. It is made, and may move to /var/tmp where the user postgres cannot reach it.
	Dir string
	// Host is the address to listen on, besides loopback.
	Host string
	// Report is told what happens.
	Report func(format string, args ...any)
}

const (
	superuser   = "postgres"
	serverUser  = "postgres" // of the operating system: PostgreSQL refuses to run as root
	startupTime = 60 * time.Second
)

// Start a server, or find the one that runs in this folder. PostgreSQL is installed when it is missing.
func Start(ctx context.Context, o Options) (*Server, error) {
	bin, err := findBinaries(ctx, o.Report)
	if err != nil {
		return nil, err
	}
	s := &Server{Host: o.Host, bin: bin, superuser: superuser}
	if err := s.chooseUser(); err != nil {
		return nil, err
	}
	if s.dir, err = s.chooseDir(o.Dir); err != nil {
		return nil, err
	}
	if err := s.initialize(ctx); err != nil {
		return nil, err
	}
	running, err := s.running(ctx)
	if err != nil {
		return nil, err
	}
	if !running {
		if err := s.start(ctx); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Find a server that Start left in this folder; nil when there is none.
func Find(dir string) (*Server, error) {
	bin, err := installed()
	if err != nil || bin == "" {
		return nil, err
	}
	s := &Server{bin: bin, superuser: superuser}
	if err := s.chooseUser(); err != nil {
		return nil, err
	}
	if s.dir, err = s.chooseDir(dir); err != nil {
		return nil, err
	}
	if _, err := os.Stat(s.data("PG_VERSION")); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return s, s.load()
}

// Stop the server at once; what it holds stays.
func (s *Server) Stop(ctx context.Context) error {
	running, err := s.running(ctx)
	if err != nil || !running {
		return err
	}
	return s.run(ctx, "pg_ctl", "-D", s.data(), "-m", "immediate", "-w", "stop")
}

// Restart starts the server again on the port that it had.
func (s *Server) Restart(ctx context.Context) error { return s.start(ctx) }

// Remove the server and everything it holds.
func (s *Server) Remove(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	return os.RemoveAll(s.dir)
}

// Address of the server, for pgx: the superuser's, or an account's.
func (s *Server) Address(account, password, database string) string {
	if account == "" {
		account, password = s.superuser, s.password
	}
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(account, password),
		Host: net.JoinHostPort(s.Host, strconv.Itoa(s.Port)), Path: "/" + database,
		RawQuery: "sslmode=verify-ca&sslrootcert=" + url.QueryEscape(filepath.Join(s.dir, "ca.crt")),
	}
	return u.String()
}

func (s *Server) data(elem ...string) string {
	return filepath.Join(append([]string{s.dir, "data"}, elem...)...)
}

// chooseUser is the user postgres when we are root, else ourselves.
func (s *Server) chooseUser() error {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup(serverUser)
	if err != nil {
		return fmt.Errorf("PostgreSQL does not run as root, and there is no user %s: %w", serverUser, err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	s.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return nil
}

// chooseDir is the wanted folder when the server's user can reach it (a clone below /root it cannot), else one in /var/tmp of a name
// that is the same each time.
func (s *Server) chooseDir(wanted string) (string, error) {
	wanted, err := filepath.Abs(wanted)
	if err != nil || s.as == nil {
		return wanted, err
	}
	for dir := filepath.Dir(wanted); dir != "/"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if info.Mode().Perm()&0o001 == 0 {
			sum := sha256.Sum256([]byte(wanted))
			return filepath.Join("/var/tmp", "metip-postgres-"+hex.EncodeToString(sum[:6])), nil
		}
	}
	return wanted, nil
}

func (s *Server) initialize(ctx context.Context) error {
	if _, err := os.Stat(s.data("PG_VERSION")); err == nil {
		return s.load()
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	s.password = rand.Text()
	authority, err := NewAuthority("Northmere Courts")
	if err != nil {
		return err
	}
	certificate, key, err := authority.Issue(ServiceName, []string{ServiceName, "localhost"}, []net.IP{net.ParseIP(s.Host)})
	if err != nil {
		return err
	}
	s.CA = authority.Certificate
	for name, content := range map[string]string{"ca.crt": s.CA, "server.crt": certificate, "server.key": key, "password": s.password + "\n"} {
		if err := s.write(name, content); err != nil {
			return err
		}
	}
	if s.as != nil {
		if err := os.Chown(s.dir, int(s.as.Uid), int(s.as.Gid)); err != nil {
			return err
		}
	}
	return s.run(ctx, "initdb", "-D", s.data(), "-U", s.superuser, "--pwfile="+filepath.Join(s.dir, "password"),
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
}

// load what initialize wrote.
func (s *Server) load() error {
	ca, err := os.ReadFile(filepath.Join(s.dir, "ca.crt"))
	if err != nil {
		return err
	}
	password, err := os.ReadFile(filepath.Join(s.dir, "password"))
	s.CA, s.password = string(ca), strings.TrimSpace(string(password))
	return err
}

func (s *Server) write(name, content string) error {
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	if s.as == nil {
		return nil
	}
	return os.Chown(path, int(s.as.Uid), int(s.as.Gid))
}

func (s *Server) start(ctx context.Context) error {
	if s.Port == 0 {
		port, err := freePort(s.Host)
		if err != nil {
			return fmt.Errorf("the court's database cannot listen: %w", err)
		}
		s.Port = port
	}
	if err := s.write("pg_hba.conf", "local all all scram-sha-256\nhostssl all all 0.0.0.0/0 scram-sha-256\n"); err != nil {
		return err
	}
	settings := []string{
		"listen_addresses=" + s.Host, "port=" + strconv.Itoa(s.Port), "unix_socket_directories=" + s.dir, "hba_file=" + filepath.Join(s.dir, "pg_hba.conf"),
		"ssl=on", "ssl_cert_file=" + filepath.Join(s.dir, "server.crt"), "ssl_key_file=" + filepath.Join(s.dir, "server.key"),
		"max_connections=200", "shared_buffers=64MB", "synchronous_commit=on",
	}
	ctx, cancel := context.WithTimeout(ctx, startupTime)
	defer cancel()
	err := s.run(ctx, "pg_ctl", "-D", s.data(), "-l", filepath.Join(s.dir, "server.log"), "-w", "-o", "-c "+strings.Join(settings, " -c "), "start")
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(s.dir, "server.log"))
		return fmt.Errorf("%w\n%s", err, log[max(0, len(log)-2000):])
	}
	return nil
}

// running also learns the address of a server that runs.
func (s *Server) running(ctx context.Context) (bool, error) {
	lines, err := os.ReadFile(s.data("postmaster.pid"))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	fields := strings.Split(string(lines), "\n")
	if len(fields) < 6 || s.run(ctx, "pg_ctl", "-D", s.data(), "status") != nil {
		return false, nil
	}
	port, err := strconv.Atoi(fields[3])
	if err != nil {
		return false, fmt.Errorf("%s is not understood: %w", s.data("postmaster.pid"), err)
	}
	if s.Host != "" && s.Host != fields[5] {
		// it listens where the cluster no longer is
		return false, s.run(ctx, "pg_ctl", "-D", s.data(), "-m", "immediate", "-w", "stop")
	}
	s.Host, s.Port = fields[5], port
	return true, nil
}

func (s *Server) run(ctx context.Context, name string, args ...string) error {
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	// the server must not keep our pipes open, hence a file for what pg_ctl prints
	file, err := os.CreateTemp("", "metip-"+name+"-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	if err := cmd.Run(); err != nil {
		if content, readErr := os.ReadFile(file.Name()); readErr == nil {
			output.Write(content)
		}
		return fmt.Errorf("%s %s: %w: %s", name, args[len(args)-1], err, bytes.TrimSpace(output.Bytes()))
	}
	return nil
}

func freePort(host string) (int, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// installed is the folder of the newest PostgreSQL, empty when there is none.
func installed() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		newest := slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })
		return filepath.Dir(newest), nil
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	return "", nil
}

func version(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

func findBinaries(ctx context.Context, report func(string, ...any)) (string, error) {
	bin, err := installed()
	if err != nil || bin != "" {
		return bin, err
	}
	if os.Geteuid() != 0 {
		return "", errors.New("PostgreSQL is not installed: `sudo apt-get install postgresql` (its binaries are enough)")
	}
	report("installing PostgreSQL from the distribution")
	// without this Debian starts a server of its own
	const settings = "/etc/postgresql-common/createcluster.conf"
	if _, err := os.Stat(settings); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(settings), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(settings, []byte("create_main_cluster = false\n"), 0o644); err != nil {
			return "", err
		}
	}
	for _, args := range [][]string{{"update", "-q"}, {"install", "-qy", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold", "postgresql"}} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if output, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("apt-get %s: %w: %s", args[0], err, bytes.TrimSpace(output[max(0, len(output)-1000):]))
		}
	}
	if bin, err = installed(); err == nil && bin == "" {
		err = errors.New("PostgreSQL was installed, and its binaries are not below /usr/lib/postgresql")
	}
	return bin, err
}
