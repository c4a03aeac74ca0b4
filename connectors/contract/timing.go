package contract

import "time"

// Delay of a step: exactly one of For and Until.
type Delay struct {
	// For is counted from when the bus stored the message.
	For Duration `json:"for,omitempty"`
	// Until is a CEL expression that yields a timestamp.
	Until string `json:"until,omitempty"`
}

// MaxDelay is the longest that a message may be held back.
const MaxDelay = 30 * 24 * time.Hour

// Throttle bounds how often a destination is delivered to: Rate attempts in each Per, spaced evenly.
type Throttle struct {
	Rate int32    `json:"rate"`
	Per  Duration `json:"per"`
}

// Throttled tells whether a destination has a step that throttles it. Its durable consumer is then read by one pod at a time
// (PinGroup), so that the rate holds however many pods there are.
func (r *Route) Throttled() bool {
	for _, s := range r.Steps {
		if s.Throttle != nil {
			return true
		}
	}
	return false
}
