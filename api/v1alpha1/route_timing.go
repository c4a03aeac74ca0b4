package v1alpha1

// Delay holds messages back: exactly one of for and until.
// +kubebuilder:validation:XValidation:rule="has(self.for) != has(self.until)",message="set exactly one of for and until, for example `delay: {for: 10m}` or `delay: {until: timestamp(data.startsAt)}`"
type Delay struct {
	// for is how long each message waits, counted from when the bus stored it, at most 720h (30 days). As many may wait as the bus holds.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s') && duration(self) <= duration('720h')",message="for must be more than 0 and at most 720h, for example 10m"
	For *Duration `json:"for,omitempty"`
	// until is a CEL expression that yields the time at which the message is delivered: a timestamp, or a text as RFC 3339 has it. A time
	// that is over means at once; one more than 30 days after the message was stored is an error. While 2000 messages of a destination
	// wait, those behind them wait too, however soon they are due.
	// +optional
	Until Expression `json:"until,omitempty"`
}

// Throttle bounds how often a destination is delivered to. Attempts are spaced evenly, and those that are made again count too. One pod at a
// time delivers to a throttled destination, so that the rate holds however many there are.
type Throttle struct {
	// rate is the number of attempts in each span of time, from 1 to 100000.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	Rate int32 `json:"rate"`
	// per is the span of time that rate is of, from 1s to 24h, by default 1s.
	// +optional
	// +default="1s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('24h')",message="per must be between 1s and 24h, for example 1m"
	Per Duration `json:"per,omitempty"`
}
