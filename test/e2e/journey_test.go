package e2e_test

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	busv1alpha1 "github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/conformance/activemqtest"
	"github.com/metip/metip/connectors/conformance/postgrestest"
	"github.com/metip/metip/connectors/conformance/rabbitmqtest"
	"github.com/metip/metip/connectors/conformance/sftptest"
)

// manifests of the stops: each has a Connector to-<stop> with a sink, and a Connector from-<stop> with a source.
//
//go:embed journey/*.yaml
var manifests embed.FS

// stop is a system that a record passes on its journey: the bus gives it the record, and takes it from there again.
type stop struct {
	name string
	// manifest in the folder journey, and its values.
	manifest string
	values   map[string]any
	// record makes of what the source says the record that went in: a jq program that drops what is none. Left out, it is that record. into
	// makes of the record what goes in, before.
	record, into string
	// fault of the system itself, while records are on their way.
	fault func()
	// last: the bus takes nothing from it.
	last bool
}

const (
	deskToken    = "a-token-of-the-desk-0123456789"
	soapPassword = "a-password-of-the-soap-system"
	perSecond    = 40
)

// journey of records through systems, each on its own namespace's Connectors.
type journey struct {
	namespace string
	stops     []stop
}

func newJourney(ctx context.Context, namespace string, stops []stop) *journey {
	GinkgoHelper()
	j := &journey{namespace, stops}
	j.apply(ctx, stop{manifest: "desk", values: map[string]any{"broker": sharedBroker, "token": deskToken}})
	from := "from-desk"
	for i, s := range stops {
		j.apply(ctx, s)
		route := &busv1alpha1.Route{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "to-" + s.name},
			Spec: busv1alpha1.RouteSpec{
				From: []busv1alpha1.RouteFrom{{Connector: busv1alpha1.ObjectName(from)}},
				To:   []busv1alpha1.Destination{{Name: busv1alpha1.ObjectName(s.name), Connector: busv1alpha1.ObjectName("to-" + s.name)}},
			},
		}
		if i > 0 && stops[i-1].record != "" {
			route.Spec.Steps = append(route.Spec.Steps, busv1alpha1.Step{Name: "record", Transform: &busv1alpha1.Transform{JQ: stops[i-1].record}})
		}
		if s.into != "" {
			route.Spec.Steps = append(route.Spec.Steps, busv1alpha1.Step{Name: "into", Transform: &busv1alpha1.Transform{JQ: s.into}})
		}
		Expect(on.Client.Create(ctx, route)).To(Succeed())
		from = "from-" + s.name
	}
	for _, o := range j.objects() {
		kind, name, _ := strings.Cut(o, "/")
		_, err := on.Run(ctx, "wait", "-n", namespace, "--for=condition=Ready", kind, name, "--timeout=120s")
		Expect(err).NotTo(HaveOccurred())
	}
	return j
}

// connectors on the way, in its order.
func (j *journey) connectors() []string {
	names := []string{"from-desk"}
	for _, s := range j.stops {
		names = append(names, "to-"+s.name)
		if !s.last {
			names = append(names, "from-"+s.name)
		}
	}
	return names
}

func (j *journey) objects() []string {
	var all []string
	for _, name := range j.connectors() {
		all = append(all, "connector/"+name)
	}
	for _, s := range j.stops {
		all = append(all, "route/to-"+s.name)
	}
	return all
}

func (j *journey) apply(ctx context.Context, s stop) {
	GinkgoHelper()
	s.values["stop"], s.values["last"] = s.name, s.last
	parsed, err := template.New(s.manifest+".yaml").Option("missingkey=error").Funcs(template.FuncMap{"json": func(v any) (string, error) {
		text, err := json.Marshal(v)
		return string(text), err
	}}).ParseFS(manifests, "journey/"+s.manifest+".yaml")
	Expect(err).NotTo(HaveOccurred())
	var text strings.Builder
	Expect(parsed.Execute(&text, s.values)).To(Succeed())
	_, err = on.RunInput(ctx, text.String(), "apply", "-n", j.namespace, "-f", "-")
	Expect(err).NotTo(HaveOccurred())
}

// pod of a Connector whose process runs.
func (j *journey) pod(ctx context.Context, connector string) string {
	GinkgoHelper()
	var pods []string
	Eventually(ctx, func() []string {
		pods = podNames(ctx, j.namespace, "bus.metip.dev/connector="+connector)
		return pods
	}).Should(HaveLen(1))
	return runningPod(ctx, j.namespace, pods[0])
}

// weigh each pod, while nothing happens.
func (j *journey) weigh(ctx context.Context) {
	GinkgoHelper()
	for _, c := range j.connectors() {
		processes, err := on.Processes(ctx, j.namespace, j.pod(ctx, c))
		Expect(err).NotTo(HaveOccurred())
		Expect(processes).To(HaveLen(1))
		weigh(processes[0], c)
	}
}

// post records until told to stop; posted is how many were accepted, which are those from 0 on.
func (j *journey) post(ctx context.Context, stop <-chan struct{}) (posted int, err error) {
	client := on.Dialer(j.namespace, "from-desk", 80).HTTPClient(10 * time.Second)
	limit := rate.NewLimiter(perSecond, 1)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for {
		select {
		case <-stop:
			return posted, group.Wait()
		default:
		}
		if limit.Wait(ctx) != nil {
			return posted, group.Wait()
		}
		id := recordID(posted)
		posted++
		group.Go(func() error { return postUntilAccepted(ctx, client, id) })
	}
}

func postUntilAccepted(ctx context.Context, client *http.Client, id string) error {
	for {
		status, err := postRecord(ctx, client, id)
		switch {
		case status == http.StatusAccepted:
			return nil
		case status/100 == 4:
			return fmt.Errorf("%s: status %d", id, status)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w, %w", id, ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func postRecord(ctx context.Context, client *http.Client, id string) (int, error) {
	body := fmt.Sprintf(`{"id": %q, "name": "Söderström", "pages": 3, "note": %q}`, id, strings.Repeat("n", 1000))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://from-desk/records", strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+deskToken)
	request.Header.Set("Idempotency-Key", id)
	answer, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	return answer.StatusCode, answer.Body.Close()
}

func recordID(i int) string { return fmt.Sprintf("record-%05d", i) }

// disturb kills every pod on the way, and each system, while records pass; after each of it records arrive again.
func (j *journey) disturb(ctx context.Context, arrived func() int) {
	GinkgoHelper()
	last := 0
	goesOn := func(what string) {
		GinkgoHelper()
		last = arrived()
		// more than were on their way behind it
		Eventually(ctx, arrived).WithTimeout(3*time.Minute).Should(BeNumerically(">", last+perSecond), "records arrive after %s was killed", what)
	}
	for _, c := range j.connectors() {
		Expect(on.Kill(ctx, j.namespace, j.pod(ctx, c))).To(Succeed())
		goesOn(c)
	}
	for _, s := range j.stops {
		if s.fault != nil {
			s.fault()
			goesOn(s.name)
		}
	}
}

// tally of the ids that arrived.
type tally map[string]int

func (t tally) problems(n int) []string {
	var found []string
	for i := range n {
		if t[recordID(i)] == 0 {
			found = append(found, recordID(i)+" is lost")
		}
	}
	for id := range t {
		if !strings.HasPrefix(id, "record-") {
			found = append(found, id+" was never sent")
		}
	}
	slices.Sort(found)
	return found
}

func (t tally) repeated() int {
	more := 0
	for _, n := range t {
		more += n - 1
	}
	return more
}

// queueStop is a queue of RabbitMQ.
func queueStop(name string, server *rabbitmqtest.Server, account, queue string) stop {
	GinkgoHelper()
	t := GinkgoTB()
	certificate, key := server.Client(t)
	server.API(t, http.MethodPut, "/api/queues/"+account+"/"+queue, map[string]any{"durable": true}, nil)
	return stop{
		name: name, manifest: "rabbitmq",
		values: map[string]any{
			"server": fmt.Sprintf("amqps://%s:%d", server.Host, server.Port), "account": account, "password": rabbitmqtest.Password, "queue": queue,
			"ca": server.CA.PEM, "certificate": certificate, "key": key,
		},
	}
}

// tableStop is a table of PostgreSQL, whose changes are captured.
func tableStop(name string, server *postgrestest.Server) stop {
	GinkgoHelper()
	const account = "journey"
	t := GinkgoTB()
	server.Exec(t, "postgres", "CREATE ROLE "+account+" LOGIN REPLICATION PASSWORD '"+postgrestest.Password+"'")
	server.Exec(t, "postgres", "CREATE DATABASE "+account+" OWNER "+account)
	server.Exec(t, account, "SET ROLE "+account+"; CREATE TABLE records (id text PRIMARY KEY, record jsonb NOT NULL); "+receivedTable)
	return stop{
		name: name, manifest: "postgres",
		values: map[string]any{
			"host": server.Host, "port": server.Port, "account": account, "password": postgrestest.Password, "ca": server.CA.PEM,
		},
		record: `select(.operation == "insert" or .operation == "read") | .after.record`,
		fault: func() {
			server.Kill()
			Expect(server.Resume()).To(Succeed())
		},
	}
}

// stompStop is a queue of ActiveMQ.
func stompStop(name string, server *activemqtest.Server) stop {
	return stop{
		name: name, manifest: "stomp",
		values: map[string]any{"server": "stomp://" + server.Address(), "user": activemqtest.User, "password": activemqtest.Password},
		fault: func() {
			server.Kill()
			Expect(server.Resume()).To(Succeed())
		},
	}
}

// folderStop is a folder of an SFTP server.
func folderStop(name string, server *sftptest.Server, key sftptest.Key) stop {
	GinkgoHelper()
	Expect(os.Mkdir(filepath.Join(server.Files, "in"), 0o750)).To(Succeed())
	return stop{
		name: name, manifest: "sftp",
		values: map[string]any{
			"host": server.Host, "port": server.Port, "hostKey": server.HostKey, "base": server.Files, "user": server.User, "key": key.Private,
		},
		fault: func() {
			server.Kill()
			Expect(server.Resume()).To(Succeed())
		},
	}
}

// receivedTable is what docs/connectors/postgres.md asks for.
const receivedTable = `CREATE TABLE metip_received (
	durable text, message_id text, received_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (durable, message_id))`

// drain the queue at the journey's end into the tally.
func (t tally) drain(server *rabbitmqtest.Server, account, queue string) error {
	conn, err := amqp.Dial(server.URL(account))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	channel, err := conn.Channel()
	if err != nil {
		return err
	}
	for {
		m, ok, err := channel.Get(queue, true)
		if err != nil || !ok {
			return err
		}
		var record struct {
			ID, Name, Note string
			Pages          int
		}
		if err := json.Unmarshal(m.Body, &record); err != nil || record.Name != "Söderström" || record.Pages != 3 || len(record.Note) != 1000 {
			t["changed: "+string(m.Body)]++
			continue
		}
		t[record.ID]++
	}
}

var _ = Describe("A journey through several systems, each pod and each system killed on the way", func() {
	It("brings every record that was accepted to its end, as it was", func(ctx SpecContext) {
		const account, end = "journey", "arrivals"
		t := GinkgoTB()
		host, err := on.HostAddress(ctx)
		Expect(err).NotTo(HaveOccurred())
		queues, err := rabbitmqtest.StartOn(host)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(queues.Close)
		tables, err := postgrestest.StartOn(host)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(tables.Close)
		jms, err := activemqtest.StartOn(host)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(jms.Close)
		key, err := sftptest.NewKey()
		Expect(err).NotTo(HaveOccurred())
		partner, err := sftptest.StartOn(host, key)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(partner.Close)
		queues.Account(t, account, rabbitmqtest.Password)

		namespace := "e2e-journey"
		makeNamespace(ctx, namespace)
		DeferCleanup(func(ctx SpecContext) {
			if CurrentSpecReport().Failed() {
				tell(ctx, namespace, sharedBroker)
			}
		}, NodeTimeout(time.Minute))
		queue := queueStop("rabbitmq", queues, account, "records")
		queue.fault = func() {
			queues.Kill()
			Expect(queues.Resume()).To(Succeed())
		}
		last := queueStop("end", queues, account, end)
		last.last = true
		folder := stop{name: "files", manifest: "files", values: map[string]any{}}
		soap := stop{name: "soap", manifest: "soap", values: map[string]any{"password": soapPassword}, into: "{Record: .}", record: ".Record | .pages |= tonumber"}
		j := newJourney(ctx, namespace, []stop{queue, soap, folder, stompStop("stomp", jms), folderStop("sftp", partner, key), tableStop("postgres", tables), last})
		j.weigh(ctx)

		arrived := tally{}
		look := func() int {
			if err := arrived.drain(queues, account, end); err != nil {
				report("the last queue: %v", err)
			}
			return len(arrived)
		}
		stopped := make(chan struct{})
		posted := make(chan int, 1)
		go func() {
			defer GinkgoRecover()
			n, err := j.post(ctx, stopped)
			posted <- n
			Expect(err).NotTo(HaveOccurred())
		}()
		j.disturb(ctx, look)
		close(stopped)
		n := <-posted
		Eventually(ctx, look).WithTimeout(2 * time.Minute).Should(BeNumerically(">=", n))
		Expect(arrived.problems(n)).To(BeEmpty())
		measured.add("records that passed all systems", float64(n), "")
		measured.add("records that came more than once, from queues that promise at least once", float64(arrived.repeated()), "")
	}, SpecTimeout(12*time.Minute))
})
