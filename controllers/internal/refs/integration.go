package refs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/outcome"
)

// Area is the Integration that an object belongs to, with its Broker and the session there.
type Area struct {
	Integration *v1alpha1.Integration
	Broker      *v1alpha1.Broker
	// Session is nil while the broker does not answer; Unreachable says why.
	Session     bus.Session
	Unreachable error
}

// Areas finds the Area of an object.
type Areas struct {
	Client            client.Reader
	Sessions          bus.Sessions
	OperatorNamespace string

	mu sync.Mutex
	// asked is when a Broker's session was first asked for; heard are the Brokers that have answered since.
	asked map[types.NamespacedName]time.Time
	heard map[types.NamespacedName]bool
}

// startGrace is how long after its start the operator takes a Broker that it has not heard yet for one that it will hear: a restart is
// no news.
const startGrace = 30 * time.Second

// Of the Integration of a name. The error is about ResolvedRefs.
func (a *Areas) Of(ctx context.Context, name types.NamespacedName) (Area, error) {
	i := &v1alpha1.Integration{}
	err := a.Client.Get(ctx, name, i)
	switch {
	case apierrors.IsNotFound(err):
		return Area{}, refused(v1alpha1.ReasonIntegrationNotFound, "there is no Integration %s in namespace %s: create it, or correct spec.integrationRef",
			name.Name, name.Namespace)
	case err != nil:
		return Area{}, fmt.Errorf("reading Integration %s: %w", name, err)
	case !i.DeletionTimestamp.IsZero():
		return Area{}, refused(v1alpha1.ReasonIntegrationNotFound, "Integration %s is being deleted", name.Name)
	}
	return a.At(ctx, i)
}

// At an Integration that is known.
func (a *Areas) At(ctx context.Context, i *v1alpha1.Integration) (Area, error) {
	area := Area{Integration: i}
	broker, err := Broker(ctx, a.Client, a.OperatorNamespace, i)
	if err != nil {
		return area, err
	}
	area.Broker = broker
	key := client.ObjectKeyFromObject(broker)
	session, err := a.Sessions.Session(key)
	if a.tooEarly(key, err == nil) {
		return area, outcome.Hold(time.Second, "waits for Broker %s", key)
	}
	if err != nil {
		area.Unreachable = err
		return area, nil
	}
	area.Session = session
	return area, nil
}

// tooEarly tells whether a Broker does not answer only because the operator has just started.
func (a *Areas) tooEarly(broker types.NamespacedName, answers bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.heard == nil {
		a.heard, a.asked = map[types.NamespacedName]bool{}, map[types.NamespacedName]time.Time{}
	}
	if answers {
		a.heard[broker] = true
	}
	if a.heard[broker] {
		return false
	}
	first, ok := a.asked[broker]
	if !ok {
		first = time.Now()
		a.asked[broker] = first
	}
	return time.Since(first) < startGrace
}

// Programmed is nil when the broker answers and has the Integration's streams; otherwise it is an outcome about Programmed.
func (a Area) Programmed() error {
	if a.Session == nil {
		return Unreachable(a.Unreachable)
	}
	c := meta.FindStatusCondition(a.Integration.Status.Conditions, v1alpha1.ConditionProgrammed)
	if c == nil || c.Status != metav1.ConditionTrue {
		return outcome.Wait(v1alpha1.ReasonIntegrationNotProgrammed, "Integration %s has no streams on the broker yet", a.Integration.Name).
			On(v1alpha1.ConditionProgrammed).In(outcome.StalledRecheck)
	}
	return nil
}

// Unreachable is the outcome of an error of a session: it waits for the broker to answer. The session's return is watched.
func Unreachable(err error) error {
	return outcome.Wait(v1alpha1.ReasonBrokerNotReady, "%w", err).On(v1alpha1.ConditionProgrammed).AsUnknown().In(outcome.DefaultWait)
}

// BusOutcome maps an error of a call to the broker, about the condition Programmed.
func BusOutcome(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bus.ErrUnreachable):
		return Unreachable(err)
	case errors.Is(err, bus.ErrNoStorage):
		return outcome.Stall(v1alpha1.ReasonInsufficientStorage, "%w: lower spec.retention, or grow the Broker's storage", err).On(v1alpha1.ConditionProgrammed)
	case errors.Is(err, bus.ErrNotFound):
		return outcome.Wait(v1alpha1.ReasonIntegrationNotProgrammed, "%w", err).On(v1alpha1.ConditionProgrammed)
	default:
		return outcome.Retry(v1alpha1.ReasonProgrammingFailed, "%w", err).On(v1alpha1.ConditionProgrammed)
	}
}
