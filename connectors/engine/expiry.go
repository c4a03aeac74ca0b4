package engine

import (
	"fmt"
	"time"

	"github.com/metip/metip/connectors/contract"
)

// A message expires for a destination by the Route's delivery.expiry, counted from when its source took it in, or by an earlier time that its
// sender has set (contract.ExtensionExpiryTime). It is looked at when an attempt is due, after the steps: what they let go is filtered, not
// expired. A message whose attempts fail for want of the system stays until then, however old.

// setExpiry of a message that has been decoded. An error says that its sender's time cannot be read.
func (d *destination) setExpiry(h *held) error {
	h.expires = 0
	limit := time.Duration(d.route.Delivery.Expiry)
	if limit <= 0 && h.message.Headers[contract.ExtensionExpiryTime] == "" {
		return nil
	}
	if isReplay(h.in.Subject) {
		// Somebody wants it although it is old: its age counts from when the copy was made, by the broker's clock.
		if limit > 0 {
			h.expires = h.at + int64(limit)
		}
		return nil
	}
	if limit > 0 {
		accepted := h.at
		if t, err := time.Parse(time.RFC3339Nano, first(h.in.Header, contract.HeaderAccepted)); err == nil {
			accepted = t.UnixNano()
		}
		h.expires = accepted + int64(limit)
	}
	if text := h.message.Headers[contract.ExtensionExpiryTime]; text != "" {
		t, err := parseExpiryTime(text)
		if err != nil {
			return err
		}
		if at := t.UnixNano(); h.expires == 0 || at < h.expires {
			h.expires = at
		}
	}
	return nil
}

// earliest and latest time that a count of nanoseconds holds, to the year.
var earliest, latest = time.Date(1970, 1, 1, 0, 0, 0, 1, time.UTC), time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC)

// parseExpiryTime of a message. Times that are further away than can be counted mean long ago, and never.
func parseExpiryTime(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, text)
	switch {
	case err != nil:
		return t, fmt.Errorf("its %s %.40q is not a time as RFC 3339 has it, for example 2026-11-22T10:00:00Z", contract.ExtensionExpiryTime, text)
	case t.Before(earliest):
		return earliest, nil
	case t.After(latest):
		return latest, nil
	}
	return t, nil
}

// expired buries a message that is too old for another attempt.
func (d *destination) expired(h *held) bool {
	if h.expires == 0 || time.Now().UnixNano() < h.expires {
		return false
	}
	err := fmt.Errorf("it was worth delivering until %s", time.Unix(0, h.expires).UTC().Format(time.RFC3339))
	d.bury(h, &deadLetter{reason: contract.DeadReasonExpired, err: err})
	return true
}

// timedOut is what becomes of a message whose attempt was not answered in time.
func (d *destination) timedOut(h *held, err error) {
	switch d.route.Delivery.OnTimeout {
	case contract.OnTimeoutRetry, contract.OnTimeoutDeadLetter:
	default:
		d.unavailable(h, err)
		return
	}
	if h.batched && !h.alone {
		// Which one of the batch is slow only they themselves can tell, each alone.
		d.separate([]*held{h})
		return
	}
	if d.route.Delivery.OnTimeout == contract.OnTimeoutDeadLetter {
		h.tried++
		d.bury(h, &deadLetter{reason: contract.DeadReasonTimedOut, err: fmt.Errorf("%w; whether the system did the work is not known", err)})
		return
	}
	d.retry(h, err)
}
