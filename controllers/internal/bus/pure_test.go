package bus

import (
	"crypto/x509"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/metip/metip/connectors/contract"
)

var update = flag.Bool("update", false, "write the golden files")

func TestRenderedConfiguration(t *testing.T) {
	for name, c := range map[string]ServerConfig{
		"one-fsync":        {Cluster: "ns-b", Routes: []string{"b-0.b-servers.ns.svc"}, Fsync: true, MaxFileStore: 1 << 30},
		"three-replicated": {Cluster: "ns-b", Routes: []string{"b-0.b-servers.ns.svc", "b-1.b-servers.ns.svc", "b-2.b-servers.ns.svc"}, MaxFileStore: 1 << 30},
	} {
		t.Run(name, func(t *testing.T) {
			c.DataDir, c.TLSDir = "/data", "/etc/metip/tls"
			c.OperatorJWT, c.SystemAccount = "operator.jwt", "ASYS"
			c.Preload = map[string]string{"ABUS": "bus.jwt", "AEDGE": "edge.jwt", "ASYS": "sys.jwt"}
			golden := filepath.Join("testdata", name+".conf")
			if *update {
				if err := os.WriteFile(golden, []byte(c.Render()), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), c.Render()); d != "" {
				t.Errorf("nats.conf (-want +got):\n%s", d)
			}
		})
	}
}

func TestServerUnderstandsTheConfiguration(t *testing.T) {
	keys, err := NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	data, _, err := RenewCertificates(nil, []string{"localhost"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ca.crt", "tls.crt", "tls.key"} {
		if err := os.WriteFile(filepath.Join(dir, name), data[name], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	operator, system := keys.Operator()
	conf := ServerConfig{
		Cluster: "c", Routes: []string{"a", "b", "c"}, Fsync: true, MaxFileStore: 1 << 30, DataDir: dir, TLSDir: dir,
		OperatorJWT: operator, SystemAccount: system, Preload: keys.Preload(),
	}
	file := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(file, []byte(conf.Render()), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if o.MaxPayload != contract.MaxMessageSize+contract.MaxHeaderSize || !o.SyncAlways || o.JetStreamLimits.MaxBatchTimeout != batchTimeout ||
		o.JetStreamMaxStore != 1<<30 || len(o.Routes) != 3 || !o.Cluster.NoAdvertise || o.Cluster.TLSConfig == nil || o.PingInterval != 10*time.Second {
		t.Errorf("the server reads something else: payload %d, sync always %v, batch timeout %s, store %d, routes %d",
			o.MaxPayload, o.SyncAlways, o.JetStreamLimits.MaxBatchTimeout, o.JetStreamMaxStore, len(o.Routes))
	}
}

func TestKeysSurviveTheirSecret(t *testing.T) {
	keys, err := NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	data, err := keys.Data()
	if err != nil {
		t.Fatal(err)
	}
	// Claims that are signed again in the same second are the same; so the stored ones are made older.
	for _, k := range []string{dataSysJWT, dataBusJWT, dataEdgeJWT} {
		data[k] = earlier(t, data[k], keys)
	}
	read, changed, err := ParseKeys(data)
	if err != nil || changed {
		t.Fatalf("reading: changed %v, err %v", changed, err)
	}
	again, err := read.Data()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(data, again); d != "" {
		t.Errorf("the Secret changes (-want +got):\n%s", d)
	}

	user, err := issueUser(keys.Edge, "u", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	revoked, err := revoke(read.EdgeClaims(), user.PublicKey, time.Now(), MaxUserLifetime, read.OperatorKey())
	if err != nil {
		t.Fatal(err)
	}
	if err := read.SetEdgeClaims(revoked); err != nil {
		t.Fatal(err)
	}
	if data, err = read.Data(); err != nil {
		t.Fatal(err)
	}
	if read, changed, err = ParseKeys(data); err != nil || changed || !isRevoked(read.EdgeClaims(), user.PublicKey) {
		t.Errorf("after a revocation: changed %v, revoked %v, err %v", changed, isRevoked(read.EdgeClaims(), user.PublicKey), err)
	}

	// Another version exported something else: the claims are signed again, the keys and revocations stay.
	old := *read.busJWT
	old.Exports = old.Exports[:1]
	if data[dataBusJWT], err = encodeAs(&old, read); err != nil {
		t.Fatal(err)
	}
	renewed, changed, err := ParseKeys(data)
	if err != nil || !changed || renewed.Bus.PublicKey != keys.Bus.PublicKey || len(renewed.busJWT.Exports) != len(contract.BusExports()) {
		t.Errorf("older claims: changed %v, err %v", changed, err)
	}
	if !isRevoked(renewed.EdgeClaims(), user.PublicKey) {
		t.Error("the revocation was forgotten")
	}

	delete(data, dataBusSeed)
	if _, _, err := ParseKeys(data); err == nil {
		t.Error("a Secret without the seed of BUS is accepted")
	}
}

// earlier changes nothing but a tag, which nobody compares, so that the encoded claims differ from those of this second.
func earlier(t *testing.T, encoded []byte, k *Keys) []byte {
	t.Helper()
	c, err := jwt.DecodeAccountClaims(string(encoded))
	if err != nil {
		t.Fatal(err)
	}
	c.Tags.Add("earlier")
	text, err := encodeAs(c, k)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func encodeAs(c *jwt.AccountClaims, k *Keys) ([]byte, error) {
	text, err := c.Encode(k.operator)
	return []byte(text), err
}

func TestRevocationsAreForgottenAfterTheUsersExpired(t *testing.T) {
	keys, err := NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	first, err := revoke(keys.EdgeClaims(), "UFIRST", now.Add(-32*24*time.Hour), MaxUserLifetime, keys.OperatorKey())
	if err != nil {
		t.Fatal(err)
	}
	second, err := revoke(first, "USECOND", now, MaxUserLifetime, keys.OperatorKey())
	if err != nil {
		t.Fatal(err)
	}
	if isRevoked(second, "UFIRST") || !isRevoked(second, "USECOND") {
		t.Errorf("revoked: first %v, second %v", isRevoked(second, "UFIRST"), isRevoked(second, "USECOND"))
	}
}

func TestCertificatesAreRenewedInTime(t *testing.T) {
	hosts := []string{"b.ns.svc", "*.b-servers.ns.svc"}
	now := time.Now()
	data, changed, err := RenewCertificates(nil, hosts, now)
	if err != nil || !changed {
		t.Fatalf("first: changed %v, err %v", changed, err)
	}
	verify := func(data map[string][]byte, bundle []byte, at time.Time) error {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(bundle)
		_, err := parseCertificates(data[dataCert])[0].Verify(x509.VerifyOptions{
			Roots: pool, CurrentTime: at, DNSName: "b-0.b-servers.ns.svc", KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		})
		return err
	}
	if err := verify(data, data[dataCA], now); err != nil {
		t.Errorf("the servers' certificate: %v", err)
	}
	day := 24 * time.Hour
	steps := []struct {
		name    string
		after   time.Duration
		hosts   []string
		renewed bool // the servers' certificate
		bundle  int  // authorities
	}{
		{"at once", 0, hosts, false, 1},
		{"half a year", 182 * day, hosts, false, 1},
		{"two thirds of its life", 250 * day, hosts, true, 1},
		{"another host", 250 * day, append(hosts, "c.ns.svc"), true, 1},
		{"the authority is old: a new one is made known", 2440 * day, hosts, true, 2},
		{"an hour later it still only rests", 2440*day + time.Hour, hosts, false, 2},
		{"two days later it signs", 2442 * day, hosts, true, 2},
		{"the old one has expired", 3651 * day, hosts, true, 1},
	}
	for _, s := range steps {
		t.Run(s.name, func(t *testing.T) {
			at := now.Add(s.after)
			before := data
			if data, _, err = RenewCertificates(data, s.hosts, at); err != nil {
				t.Fatal(err)
			}
			if got := string(before[dataCert]) != string(data[dataCert]); got != s.renewed {
				t.Errorf("renewed: %v, want %v", got, s.renewed)
			}
			if got := len(parseCertificates(data[dataCA])); got != s.bundle {
				t.Errorf("%d authorities, want %d", got, s.bundle)
			}
			if err := verify(data, data[dataCA], at); err != nil {
				t.Errorf("by the new bundle: %v", err)
			}
			if s.after < 2442*day { // clients that have not read the new bundle yet
				if err := verify(data, before[dataCA], at); err != nil {
					t.Errorf("by the old bundle: %v", err)
				}
			}
			if again, changed, err := RenewCertificates(data, s.hosts, at); err != nil || changed || string(again[dataCert]) != string(data[dataCert]) {
				t.Errorf("again: changed %v, err %v", changed, err)
			}
		})
	}
}

func TestReportsTellOnlyWhatMatters(t *testing.T) {
	base := contract.Report{ConfigHash: "h", Started: time.Unix(1, 0), Sequence: 1, System: contract.State{OK: true}, Bus: contract.State{OK: true}}
	for name, c := range map[string]struct {
		change func(*contract.Report)
		want   bool
	}{
		"a repeat":         {func(r *contract.Report) { r.Sequence = 2; r.System.Since = time.Unix(9, 0) }, false},
		"another hash":     {func(r *contract.Report) { r.ConfigHash = "i" }, true},
		"a restart":        {func(r *contract.Report) { r.Started = time.Unix(2, 0) }, true},
		"draining":         {func(r *contract.Report) { r.Draining = true }, true},
		"the system fails": {func(r *contract.Report) { r.System = contract.State{Reason: "SystemError"} }, true},
		"a route fails":    {func(r *contract.Report) { r.Routes = []contract.RouteState{{Route: "r"}} }, true},
	} {
		t.Run(name, func(t *testing.T) {
			changed := base
			c.change(&changed)
			if got := differs(changed, base); got != c.want {
				t.Errorf("differs: %v, want %v", got, c.want)
			}
		})
	}
}
