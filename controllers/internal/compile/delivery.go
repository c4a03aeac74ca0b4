package compile

import (
	"time"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
)

// The values at the end of the inheritance, as the API documents them.
const (
	DefaultTimeout    = 30 * time.Second
	DefaultAttempts   = 10
	DefaultBackoff    = time.Second
	DefaultMaxBackoff = 5 * time.Minute

	// DefaultRetention, DefaultSize and DefaultDeadLettersSize of an Integration.
	DefaultRetention       = 24 * time.Hour
	DefaultSize            = 1 << 30
	DefaultDeadLettersSize = 128 << 20
	// DefaultDeduplicationWindow is the API's default, for objects that were made without it.
	DefaultDeduplicationWindow = 5 * time.Minute

	// AckWait of every durable consumer: what a pod held that died comes again after it. However long a delivery takes, a pod that lives
	// tells the broker at every third of it that the message is in good hands.
	AckWait = 15 * time.Second
)

// Delivery is the effective delivery: each field is the first one that is set, from the destination over the Route to the
// Integration, and at last the documented value.
func Delivery(levels ...*v1alpha1.Delivery) contract.Delivery {
	var timeout, backoff, maxBackoff, expiry *v1alpha1.Duration
	var onTimeout *v1alpha1.TimeoutPolicy
	var attempts *int32
	for _, l := range levels {
		if l == nil {
			continue
		}
		timeout = first(timeout, l.Timeout)
		expiry = first(expiry, l.Expiry)
		if l.Retry != nil {
			attempts = first(attempts, l.Retry.Attempts)
			backoff = first(backoff, l.Retry.Backoff)
			maxBackoff = first(maxBackoff, l.Retry.MaxBackoff)
			onTimeout = first(onTimeout, l.Retry.OnTimeout)
		}
	}
	d := contract.Delivery{
		Timeout:    contract.Duration(duration(timeout, DefaultTimeout)),
		Attempts:   DefaultAttempts,
		Backoff:    contract.Duration(duration(backoff, DefaultBackoff)),
		MaxBackoff: contract.Duration(duration(maxBackoff, DefaultMaxBackoff)),
		Expiry:     contract.Duration(duration(expiry, 0)),
	}
	// The value at the end of the inheritance is left out, so that configurations keep their hash.
	if onTimeout != nil && *onTimeout != v1alpha1.TimeoutWait {
		d.OnTimeout = string(*onTimeout)
	}
	if attempts != nil {
		d.Attempts = *attempts
	}
	// The two may come from different levels, so that no rule of the schema compares them.
	d.MaxBackoff = max(d.MaxBackoff, d.Backoff)
	return d
}

func first[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}

func duration(d *v1alpha1.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	v, err := time.ParseDuration(string(*d))
	if err != nil { // the schema's pattern allows none such
		return otherwise
	}
	return v
}

// Retention of an Integration's delivered messages.
func Retention(r *v1alpha1.Retention) time.Duration {
	if r == nil {
		return DefaultRetention
	}
	return duration(r.Period, DefaultRetention)
}

// Sizes at which an Integration's streams push back: events, dead letters.
func Sizes(r *v1alpha1.Retention) (events, dead int64) {
	events, dead = DefaultSize, DefaultDeadLettersSize
	if r != nil && r.Size != nil {
		events = r.Size.Value()
	}
	if r != nil && r.DeadLettersSize != nil {
		dead = r.DeadLettersSize.Value()
	}
	return events, dead
}

// DeduplicationWindow of an Integration.
func DeduplicationWindow(i *v1alpha1.Integration) time.Duration {
	if i.Spec.DeduplicationWindow == "" {
		return DefaultDeduplicationWindow
	}
	return duration(&i.Spec.DeduplicationWindow, DefaultDeduplicationWindow)
}
