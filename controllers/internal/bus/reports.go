package bus

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metip/metip/connectors/contract"
)

// reports of all pods, in memory. Only what matters to a status is told to others: a pod repeats itself every few seconds.
type reports struct {
	// onChange must not block.
	onChange func(types.NamespacedName)

	mu         sync.Mutex
	pods       map[types.NamespacedName]map[string]PodReport
	subscribed bool
}

func newReports(onChange func(types.NamespacedName)) *reports {
	return &reports{onChange: onChange, pods: map[types.NamespacedName]map[string]PodReport{}}
}

// of a connector: the pods that were heard of within contract.ReportTimeout, by name.
func (r *reports) of(connector types.NamespacedName) []PodReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []PodReport
	for _, p := range r.pods[connector] {
		if time.Since(p.At) <= contract.ReportTimeout {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b PodReport) int { return strings.Compare(a.Pod, b.Pod) })
	return out
}

// load subscribes, once, and reads what was reported while nobody listened.
func (r *reports) load(ctx context.Context, nc *nats.Conn, js jetstream.JetStream) error {
	r.mu.Lock()
	subscribed := r.subscribed
	r.subscribed = true
	r.mu.Unlock()
	if !subscribed {
		if _, err := nc.Subscribe(contract.StatusSubjects, func(m *nats.Msg) { r.take(m.Subject, m.Data, time.Now()) }); err != nil {
			r.mu.Lock()
			r.subscribed = false
			r.mu.Unlock()
			return err
		}
	}
	return r.read(ctx, js)
}

// read the last report of each pod from the status stream.
func (r *reports) read(ctx context.Context, js jetstream.JetStream) error {
	consumer, err := js.CreateConsumer(ctx, contract.StatusStream, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, FilterSubject: contract.StatusSubjects, AckPolicy: jetstream.AckNonePolicy,
		MemoryStorage: true, Replicas: 1, InactiveThreshold: 10 * time.Second,
	})
	if err != nil {
		return err
	}
	for {
		batch, err := consumer.FetchNoWait(500)
		if err != nil {
			return err
		}
		count := 0
		for m := range batch.Messages() {
			count++
			at := time.Now()
			if meta, err := m.Metadata(); err == nil && meta.Timestamp.Before(at) {
				at = meta.Timestamp
			}
			r.take(m.Subject(), m.Data(), at)
		}
		if err := batch.Error(); err != nil {
			return err
		}
		if count == 0 {
			break
		}
	}
	name := consumer.CachedInfo().Name
	if err := js.DeleteConsumer(ctx, contract.StatusStream, name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return err
	}
	return nil
}

// take a report in. What is malformed is dropped: any pod may write rubbish under its own name.
func (r *reports) take(subject string, data []byte, at time.Time) {
	namespace, name, pod, ok := contract.ParseStatusSubject(subject)
	if !ok || len(data) > contract.MaxReportSize {
		return
	}
	var report contract.Report
	if err := json.Unmarshal(data, &report); err != nil {
		return
	}
	connector := types.NamespacedName{Namespace: namespace, Name: name}
	r.mu.Lock()
	pods := r.pods[connector]
	if pods == nil {
		pods = map[string]PodReport{}
		r.pods[connector] = pods
	}
	old, known := pods[pod]
	if known && older(report, old.Report) {
		r.mu.Unlock()
		return
	}
	if known && old.At.After(at) {
		at = old.At
	}
	silent := time.Since(at) > contract.ReportTimeout
	if !silent {
		pods[pod] = PodReport{Pod: pod, At: at, Report: report}
	}
	r.mu.Unlock()
	if !silent && (!known || differs(report, old.Report)) {
		r.onChange(connector)
	}
}

// older says that a report was made before another of the same pod.
func older(a, b contract.Report) bool {
	if !a.Started.Equal(b.Started) {
		return a.Started.Before(b.Started)
	}
	return a.Sequence < b.Sequence
}

// differs says whether a report changes what a status says. Since when a state lasts, and how often it was repeated, do not.
func differs(a, b contract.Report) bool {
	same := func(x, y contract.State) bool { return x.OK == y.OK && x.Reason == y.Reason && x.Message == y.Message }
	return a.ConfigHash != b.ConfigHash || !a.Started.Equal(b.Started) || a.Draining != b.Draining ||
		!same(a.System, b.System) || !same(a.Bus, b.Bus) || a.MoreRoutes != b.MoreRoutes ||
		!slices.EqualFunc(a.Routes, b.Routes, func(x, y contract.RouteState) bool {
			return x.Route == y.Route && x.Destination == y.Destination && same(x.State, y.State)
		})
}

// watchSilence forgets pods that fell silent, and tells of it, until ctx ends.
func (r *reports) watchSilence(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			for _, connector := range r.forget(now) {
				r.onChange(connector)
			}
		}
	}
}

func (r *reports) forget(now time.Time) []types.NamespacedName {
	r.mu.Lock()
	defer r.mu.Unlock()
	var silent []types.NamespacedName
	for connector, pods := range r.pods {
		before := len(pods)
		for pod, report := range pods {
			if now.Sub(report.At) > contract.ReportTimeout {
				delete(pods, pod)
			}
		}
		if len(pods) < before {
			silent = append(silent, connector)
		}
		if len(pods) == 0 {
			delete(r.pods, connector)
		}
	}
	return silent
}
