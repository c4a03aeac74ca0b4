package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/compile"
)

// readTimeout bounds a collection; the cache answers at once or not at all.
const readTimeout = 5 * time.Second

var (
	objects = prometheus.NewDesc("metip_objects",
		"Objects by kind and by the status of their condition Ready (True, False or Unknown).", []string{"kind", "ready"}, nil)
	notReady = prometheus.NewDesc("metip_object_not_ready",
		"1 for each object whose condition Ready is not True, with the reason.", []string{"kind", "namespace", "name", "reason"}, nil)
	suspended = prometheus.NewDesc("metip_object_suspended_since_timestamp_seconds",
		"Since when an object has been suspended, as Unix time; only for those that are.", []string{"kind", "namespace", "name"}, nil)
	credential = prometheus.NewDesc("metip_connector_credential_expiry_timestamp_seconds",
		"When the broker credential of a Connector ends, as Unix time.", []string{"namespace", "name"}, nil)
	certificate = prometheus.NewDesc("metip_webhook_certificate_expiry_timestamp_seconds",
		"When the certificate of the webhook and of these metrics ends, as Unix time.", nil, nil)
	pending = prometheus.NewDesc("metip_route_destination_pending",
		"Messages on the bus that a destination of a Route has not acknowledged yet.", []string{"namespace", "route", "destination"}, nil)
	tableBytes = prometheus.NewDesc("metip_table_bytes",
		"Bytes that a lookup table takes on the broker; spec.tables of the Integration bounds them.", []string{"namespace", "integration", "table"}, nil)
	tableEntries = prometheus.NewDesc("metip_table_entries",
		"Entries of a lookup table, and notes that a key was removed.", []string{"namespace", "integration", "table"}, nil)
	claims = prometheus.NewDesc("metip_claims",
		"Claim checks that are stored.", []string{"namespace", "integration"}, nil)
	claimBytes = prometheus.NewDesc("metip_claims_bytes",
		"Bytes of the bodies that are stored as claim checks.", []string{"namespace", "integration"}, nil)
	claimsDropped = prometheus.NewDesc("metip_claims_dropped_total",
		"Claim checks that were removed because nothing names them.", []string{"namespace", "integration"}, nil)
	claimBytesDropped = prometheus.NewDesc("metip_claims_dropped_bytes_total",
		"Bytes of the claim checks that were removed.", []string{"namespace", "integration"}, nil)
)

// Collector of the operator's metrics.
type Collector struct {
	// Reader is the manager's cache.
	Reader client.Reader
	// Certificate tells when the webhook's certificate ends; the zero time when there is none.
	Certificate func() time.Time
	// Backlog of the destinations; nil when nobody counts it.
	Backlog *Backlog
	// Claims tells of the claim checks of each Integration; nil when nobody counts them.
	Claims func(func(integration types.NamespacedName, n bus.ClaimCount))
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		objects, notReady, suspended, credential, certificate, pending, tableBytes, tableEntries, claims, claimBytes, claimsDropped, claimBytesDropped,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout) //nolint:forbidigo // prometheus gives none
	defer cancel()
	if c.Certificate != nil {
		if t := c.Certificate(); !t.IsZero() {
			ch <- prometheus.MustNewConstMetric(certificate, prometheus.GaugeValue, float64(t.Unix()))
		}
	}
	if c.Backlog != nil {
		c.Backlog.each(time.Now(), func(namespace string, d Destination, n uint64) {
			ch <- prometheus.MustNewConstMetric(pending, prometheus.GaugeValue, float64(n), namespace, d.Route, d.Name)
		})
		c.Backlog.eachTable(time.Now(), func(i types.NamespacedName, t Table) {
			ch <- prometheus.MustNewConstMetric(tableBytes, prometheus.GaugeValue, float64(t.Bytes), i.Namespace, i.Name, t.Name)
			ch <- prometheus.MustNewConstMetric(tableEntries, prometheus.GaugeValue, float64(t.Entries), i.Namespace, i.Name, t.Name)
		})
	}
	if c.Claims != nil {
		c.Claims(func(i types.NamespacedName, n bus.ClaimCount) {
			ch <- prometheus.MustNewConstMetric(claims, prometheus.GaugeValue, float64(n.Held), i.Namespace, i.Name)
			ch <- prometheus.MustNewConstMetric(claimBytes, prometheus.GaugeValue, float64(n.HeldBytes), i.Namespace, i.Name)
			ch <- prometheus.MustNewConstMetric(claimsDropped, prometheus.CounterValue, float64(n.Dropped), i.Namespace, i.Name)
			ch <- prometheus.MustNewConstMetric(claimBytesDropped, prometheus.CounterValue, float64(n.DroppedBytes), i.Namespace, i.Name)
		})
	}
	var brokers v1alpha1.BrokerList
	var integrations v1alpha1.IntegrationList
	var connectors v1alpha1.ConnectorList
	var routes v1alpha1.RouteList
	var replays v1alpha1.ReplayList
	for _, list := range []client.ObjectList{&brokers, &integrations, &connectors, &routes, &replays} {
		if err := c.Reader.List(ctx, list); err != nil {
			ch <- prometheus.NewInvalidMetric(objects, err)
			return
		}
	}
	seen := map[[2]string]float64{}
	for i := range brokers.Items {
		add(ch, seen, "Broker", &brokers.Items[i], brokers.Items[i].Status.Conditions)
	}
	for i := range integrations.Items {
		add(ch, seen, "Integration", &integrations.Items[i], integrations.Items[i].Status.Conditions)
	}
	for i := range routes.Items {
		add(ch, seen, "Route", &routes.Items[i], routes.Items[i].Status.Conditions)
	}
	for i := range replays.Items {
		add(ch, seen, "Replay", &replays.Items[i], replays.Items[i].Status.Conditions)
	}
	for i := range connectors.Items {
		o := &connectors.Items[i]
		add(ch, seen, "Connector", o, o.Status.Conditions)
		if t := o.Status.CredentialExpiry; t != nil {
			ch <- prometheus.MustNewConstMetric(credential, prometheus.GaugeValue, float64(t.Unix()), o.Namespace, o.Name)
		}
	}
	for k, n := range seen {
		ch <- prometheus.MustNewConstMetric(objects, prometheus.GaugeValue, n, k[0], k[1])
	}
}

func add(ch chan<- prometheus.Metric, seen map[[2]string]float64, kind string, o client.Object, list []metav1.Condition) {
	status, reason := metav1.ConditionUnknown, v1alpha1.ReasonPending
	if c := meta.FindStatusCondition(list, v1alpha1.ConditionReady); c != nil {
		status, reason = c.Status, c.Reason
	}
	seen[[2]string{kind, string(status)}]++
	if status != metav1.ConditionTrue {
		ch <- prometheus.MustNewConstMetric(notReady, prometheus.GaugeValue, 1, kind, o.GetNamespace(), o.GetName(), reason)
	}
	if c := meta.FindStatusCondition(list, v1alpha1.ConditionSuspended); c != nil && c.Status == metav1.ConditionTrue && compile.Suspended(own(o)) {
		ch <- prometheus.MustNewConstMetric(suspended, prometheus.GaugeValue, float64(c.LastTransitionTime.Unix()), kind, o.GetNamespace(), o.GetName())
	}
}

// own switch of an object: what is suspended with its Integration is counted there.
func own(o client.Object) *bool {
	switch o := o.(type) {
	case *v1alpha1.Integration:
		return o.Spec.Suspend
	case *v1alpha1.Connector:
		return o.Spec.Suspend
	case *v1alpha1.Route:
		return o.Spec.Suspend
	case *v1alpha1.Replay:
		return o.Spec.Suspend
	}
	return nil
}
