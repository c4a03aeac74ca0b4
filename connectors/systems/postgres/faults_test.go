package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/metip/metip/connectors/conformance/certs"
	"github.com/metip/metip/connectors/conformance/fakes"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

func asUnavailable(err error, u **sdk.UnavailableError) bool { return errors.As(err, u) }

const plainTable = `CREATE TABLE t (id int PRIMARY KEY, v text);`

var plainWrite = map[string]any{"table": "t", "keyColumns": []string{"id"}}

func TestCheck(t *testing.T) {
	f := newFixture(t, plainTable, plainWrite)
	s, _ := f.open(t)
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestWrongPasswordAndRotation(t *testing.T) {
	f := newFixture(t, plainTable, plainWrite)
	f.secrets.Set(map[string]string{"password": "wrong"})
	s, op := f.open(t)
	message := fakes.Delivery("1", `{"id":1}`)
	wantUnavailable(t, write(t, op, message)[0], contract.ReasonAuthenticationFailed, "postgres://127.0.0.1:")
	wantUnavailable(t, s.Check(t.Context()), contract.ReasonAuthenticationFailed, "password authentication failed")
	f.secrets.Set(map[string]string{"password": "secret"})
	mustWrite(t, op, message)

	// The password changes on both sides: connections made with the old one are replaced.
	server.Exec(t, "postgres", "ALTER ROLE "+f.database+" PASSWORD 'newer'")
	f.secrets.Set(map[string]string{"password": "newer"})
	fakes.Eventually(t, 5*time.Second, "the old connections are gone", func() bool {
		return s.(*sink).pool.Stat().TotalConns() == 0 || s.(*sink).pool.Stat().NewConnsCount() > 1
	})
	mustWrite(t, op, fakes.Delivery("2", `{"id":2}`))
}

func TestMissingCredentials(t *testing.T) {
	f := newFixture(t, plainTable, plainWrite)
	f.secrets = &fakes.Secrets{}
	s, op := f.open(t)
	wantUnavailable(t, write(t, op, fakes.Delivery("1", `{"id":1}`))[0], contract.ReasonCredentialsMissing, "test-secret")
	f.secrets.Set(map[string]string{"username": f.database, "password": "secret"})
	wantUnavailable(t, s.Check(t.Context()), contract.ReasonCredentialsMissing, "ca.crt")
	f.secrets.Set(map[string]string{"ca.crt": server.CA.PEM})
	mustWrite(t, op, fakes.Delivery("1", `{"id":1}`))
}

func TestCertificates(t *testing.T) {
	other, err := certs.New("another CA")
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, plainTable, plainWrite)
	f.secrets.Set(map[string]string{"ca.crt": other.PEM})
	s, op := f.open(t)
	wantUnavailable(t, write(t, op, fakes.Delivery("1", `{"id":1}`))[0], contract.ReasonCertificateInvalid, "certificate")
	f.secrets.Set(map[string]string{"ca.crt": "rubbish"})
	wantUnavailable(t, s.Check(t.Context()), contract.ReasonCertificateInvalid, "Secret db-ca key ca.crt")
	f.secrets.Set(map[string]string{"ca.crt": server.CA.PEM})
	mustWrite(t, op, fakes.Delivery("1", `{"id":1}`))

	f.config.TLS.ServerName = "db.example"
	s, _ = f.open(t)
	wantUnavailable(t, s.Check(t.Context()), contract.ReasonCertificateInvalid, "db.example")
}

func TestNotEncrypted(t *testing.T) {
	f := newFixture(t, plainTable, plainWrite)
	f.config.TLS = nil
	f.options["connection"].(map[string]any)["encryption"] = "Disabled"
	_, op := f.open(t)
	mustWrite(t, op, fakes.Delivery("1", `{"id":1}`))
}

func TestMissingDatabaseAndHost(t *testing.T) {
	f := newFixture(t, plainTable, plainWrite)
	connection := f.options["connection"].(map[string]any)
	connection["database"] = "nowhere"
	s, _ := f.open(t)
	wantUnavailable(t, s.Check(t.Context()), contract.ReasonSystemError, "nowhere")
	connection["port"] = 1
	s, op := f.open(t)
	wantUnavailable(t, s.Check(t.Context()), contract.ReasonConnectionFailed, "postgres://127.0.0.1:1/nowhere")
	wantUnavailable(t, write(t, op, fakes.Delivery("1", `{"id":1}`))[0], contract.ReasonConnectionFailed, "refused")
}

func TestServerDown(t *testing.T) {
	f := newFixture(t, plainTable, plainWrite)
	s, op := f.open(t)
	mustWrite(t, op, fakes.Delivery("1", `{"id":1}`))
	server.Halt()
	started := time.Now()
	err := write(t, op, fakes.Delivery("2", `{"id":2}`))[0]
	check := s.Check(t.Context())
	took := time.Since(started)
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	wantUnavailable(t, err, contract.ReasonConnectionFailed, "")
	wantUnavailable(t, check, contract.ReasonConnectionFailed, "")
	if took > 10*time.Second {
		t.Errorf("it took %s to say so", took)
	}
	mustWrite(t, op, fakes.Delivery("2", `{"id":2}`))
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestServerKilledInMidBatch(t *testing.T) {
	f := newFixture(t, `CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE log (id int);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO log VALUES (NEW.id); RETURN NULL; END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note();`, plainWrite)
	_, op := f.open(t)
	const n = 4000
	pending := map[int]bool{}
	for i := range n {
		pending[i] = true
	}
	killed := make(chan struct{})
	var written atomic.Int64
	for pass := 0; len(pending) > 0 && pass < 50; pass++ {
		var batch []*sdk.Delivery
		var ids []int
		for i := range n {
			if !pending[i] {
				continue
			}
			ids = append(ids, i)
			batch = append(batch, fakes.Delivery(fmt.Sprint(i), fmt.Sprintf(`{"id":%d,"v":%q}`, i, strings.Repeat("x", 500))))
		}
		for from := 0; from < len(batch); from += maxBatch {
			to := min(from+maxBatch, len(batch))
			if pass == 0 && from == 3*maxBatch {
				go func() {
					defer close(killed)
					server.Kill()
				}()
			}
			for k, err := range write(t, op, batch[from:to]...) {
				switch {
				case err == nil:
					delete(pending, ids[from+k])
					written.Add(1)
				case sdk.IsPermanent(err):
					t.Fatalf("a crash makes no message bad: %v", err)
				}
			}
		}
		if pass == 0 {
			<-killed
			if err := server.Resume(); err != nil {
				t.Fatal(err)
			}
		}
	}
	// fsync is off in the fixture, but a killed process loses nothing that it had written to the kernel.
	if got := rowsOf(t, f, `SELECT count(*), count(DISTINCT id) FROM log`); got != fmt.Sprintf("%d|%d", n, n) {
		t.Errorf("got %s of %d messages", got, n)
	}
}

// cutter is a proxy that swallows the server's answers once told to: the transaction commits, and nobody hears of it.
func cutter(t *testing.T) (port int, swallow *atomic.Bool) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	swallow = &atomic.Bool{}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = client.Close() }()
				upstream, err := net.Dial("tcp", net.JoinHostPort(server.Host, strconv.Itoa(server.Port)))
				if err != nil {
					return
				}
				defer func() { _ = upstream.Close() }()
				go func() { _, _ = io.Copy(upstream, client) }()
				buffer := make([]byte, 32<<10)
				for {
					n, err := upstream.Read(buffer)
					if err != nil || (n > 0 && swallow.Load()) {
						return
					}
					if _, err := client.Write(buffer[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return listener.Addr().(*net.TCPAddr).Port, swallow
}

func TestAnswerLost(t *testing.T) {
	f := newFixture(t, `CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE log (id int);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO log VALUES (NEW.id); RETURN NULL; END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note();`, plainWrite)
	port, swallow := cutter(t)
	f.options["connection"].(map[string]any)["port"] = port
	_, op := f.open(t)
	mustWrite(t, op, fakes.Delivery("1", `{"id":1}`))
	swallow.Store(true)
	err := write(t, op, fakes.Delivery("2", `{"id":2}`))[0]
	wantUnavailable(t, err, contract.ReasonConnectionFailed, "")
	fakes.Eventually(t, 10*time.Second, "the unheard transaction has committed", func() bool {
		return rowsOf(t, f, `SELECT count(*) FROM log`) == "2"
	})
	swallow.Store(false)
	mustWrite(t, op, fakes.Delivery("2", `{"id":2}`))
	if got := rowsOf(t, f, `SELECT count(*) FROM log`); got != "2" {
		t.Errorf("the message was written again: %s rows", got)
	}
}

func TestLockedRowIsTransient(t *testing.T) {
	f := newFixture(t, plainTable, plainWrite)
	_, op := f.open(t)
	mustWrite(t, op, fakes.Delivery("1", `{"id":1}`))
	release := lockRow(t, f)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	started := time.Now()
	err := op.Write(ctx, []*sdk.Delivery{fakes.Delivery("2", `{"id":1,"v":"x"}`)})[0]
	var u *sdk.UnavailableError
	if err == nil || sdk.IsPermanent(err) || errors.As(err, &u) {
		t.Errorf("got %v, want a transient error", err)
	}
	if took := time.Since(started); took > 3*time.Second {
		t.Errorf("Write returned %s after its context had ended", took)
	}
	fakes.Eventually(t, 5*time.Second, "the statement is cancelled in the server", func() bool {
		return rowsOf(t, f, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`) == "0"
	})
	release()
	mustWrite(t, op, fakes.Delivery("2", `{"id":1,"v":"x"}`))
}

func lockRow(t *testing.T, f *fixture) (release func()) {
	t.Helper()
	locked, free, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	other := newFixtureConn(t, f)
	go func() {
		defer close(done)
		other("BEGIN; SELECT * FROM t WHERE id = 1 FOR UPDATE")
		close(locked)
		<-free
		other("ROLLBACK")
	}()
	<-locked
	return sync.OnceFunc(func() { close(free); <-done })
}

func TestOppositeOrdersDoNotDeadlock(t *testing.T) {
	f := newFixture(t, plainTable, plainWrite)
	_, op := f.open(t)
	var wg sync.WaitGroup
	for writer := range 4 {
		wg.Go(func() {
			for round := range 20 {
				var batch []*sdk.Delivery
				for i := range 50 {
					id := i
					if writer%2 == 1 {
						id = 49 - i
					}
					batch = append(batch, fakes.Delivery(fmt.Sprintf("%d-%d-%d", writer, round, id), fmt.Sprintf(`{"id":%d,"v":"%d"}`, id, writer)))
				}
				for _, err := range op.Write(t.Context(), batch) {
					if err != nil {
						t.Errorf("writer %d: %v", writer, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestLargeBodies(t *testing.T) {
	f := newFixture(t, plainTable, plainWrite)
	_, op := f.open(t)
	var batch []*sdk.Delivery
	for i := range 4 {
		batch = append(batch, fakes.Delivery(fmt.Sprint(i), fmt.Sprintf(`{"id":%d,"v":%q}`, i, strings.Repeat("x\\", 2<<20))))
	}
	mustWrite(t, op, batch...)
	if got := rowsOf(t, f, `SELECT count(*), sum(length(v)) FROM t`); got != fmt.Sprintf("4|%d", 4*2*(2<<20)) {
		t.Errorf("got %s", got)
	}
}
