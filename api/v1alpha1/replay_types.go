package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Replay delivers messages that the bus still holds to one destination of one Route again: those of a time, of a range of sequences or
// of certain ids, or the destination's dead letters. Like a Job it runs once and says when it is done. The messages keep their ids, so that a
// destination that recognises what it has (an upsert, an Idempotency-Key) ends up as if each had come once; the Route's filter and steps, as
// they are now, run on them again. Replayed messages come after newer ones: they are not part of the order that a Route promises.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=metip
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="To",type=string,JSONPath=`.status.to`
// +kubebuilder:printcolumn:name="Progress",type=string,JSONPath=`.status.progress`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Rate",type=integer,priority=1,JSONPath=`.spec.rate`
// +kubebuilder:printcolumn:name="Missing",type=integer,priority=1,JSONPath=`.status.counts.missing`
// +kubebuilder:printcolumn:name="Completed",type=date,priority=1,JSONPath=`.status.completedAt`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z]([-a-z0-9]{0,50}[a-z0-9])?$')",message="a Replay's name is at most 52 of a-z, 0-9 and '-', begins with a letter and has no dots: every message that it brings carries it",fieldPath=".metadata"
type Replay struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard metadata of an object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`
	// spec is what is wanted.
	// +required
	Spec ReplaySpec `json:"spec"`
	// status is what was found.
	// +optional
	// +default={"observedGeneration": -1, "conditions": [{"type": "Ready", "status": "Unknown", "reason": "Pending", "message": "waiting for the operator", "lastTransitionTime": "1970-01-01T00:00:00Z"}]}
	Status ReplayStatus `json:"status,omitempty,omitzero"`
}

// ReplayList is a list of Replays.
// +kubebuilder:object:root=true
type ReplayList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Replay `json:"items"`
}

// ReplaySpec is what is wanted of a Replay: which messages, to where, how fast. Only rate, suspend and ttlSecondsAfterFinished can change.
// +kubebuilder:validation:XValidation:rule="has(self.dryRun) == has(oldSelf.dryRun) && (!has(self.dryRun) || self.dryRun == oldSelf.dryRun)",message="dryRun cannot change: create another Replay"
type ReplaySpec struct {
	// to names the Route, and which of its destinations gets the messages. It cannot change.
	// +required
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="to cannot change: create another Replay"
	To ReplayTarget `json:"to"`
	// from selects the messages: exactly one of time, sequences, ids and deadLetters. What the Route does not read (its `from`) is left
	// out. It cannot change.
	// +required
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="from cannot change: create another Replay"
	From ReplaySource `json:"from"`
	// rate is how many messages a second are put on the bus at most, evenly, from 1 to 100000, by default 500. How fast they are
	// delivered is the destination's: what it has not taken waits on the bus. It can change at any time.
	// +optional
	// +default=500
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	Rate int32 `json:"rate,omitempty"`
	// dryRun counts the messages, says how many there are in status.counts, and delivers nothing. It cannot change.
	// +optional
	DryRun *bool `json:"dryRun,omitempty"`
	// suspend stops the Replay where it is; false, or left out, lets it go on from there. What it has put on the bus already is delivered all
	// the same. A Replay that is suspended no longer keeps what it has yet to read from being trimmed.
	// +optional
	Suspend *bool `json:"suspend,omitempty"`
	// ttlSecondsAfterFinished is for how many seconds this object stays once it is complete or has failed, for example 86400.
	// Left out, it stays until somebody deletes it.
	// +optional
	// +kubebuilder:validation:Minimum=0
	TTLSecondsAfterFinished *int32 `json:"ttlSecondsAfterFinished,omitempty"`
}

// ReplayTarget is one destination of a Route.
type ReplayTarget struct {
	// route of this namespace.
	// +required
	Route ObjectName `json:"route"`
	// destination of the Route, by its name there. It may be left out where the Route has one only.
	// +optional
	Destination ObjectName `json:"destination,omitempty"`
}

// ReplaySource is exactly one selection of messages.
// +kubebuilder:validation:XValidation:rule="[has(self.time),has(self.sequences),has(self.ids),has(self.deadLetters)].filter(x, x).size() == 1",message="set exactly one of time, sequences, ids and deadLetters, for example `from: {time: {from: '2026-11-21T00:00:00Z', to: '2026-11-22T00:00:00Z'}}`"
type ReplaySource struct {
	// time selects what the bus stored in a span of time.
	// +optional
	Time *ReplayTime `json:"time,omitempty"`
	// sequences selects by the number that a message has in the Integration's stream, which dead letters and logs name.
	// +optional
	Sequences *ReplaySequences `json:"sequences,omitempty"`
	// ids selects single messages wherever they are in the stream: by the source's id (ce-id), or by the bus's own id of the message.
	// At most 500. Those that the bus does not hold are counted in status.counts.missing.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=500
	IDs []MessageID `json:"ids,omitempty"`
	// deadLetters selects the destination's dead letters; `deadLetters: {}` is all of them. Each is removed once its message is on the bus
	// again. A message that fails once more becomes a new dead letter, which this Replay does not touch.
	// +optional
	DeadLetters *ReplayDeadLetters `json:"deadLetters,omitempty"`
}

// MessageID is an id that a source gave a message, or the bus's own of it.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=1024
type MessageID string

// ReplayTime is a span of time, by the bus's clock.
// +kubebuilder:validation:XValidation:rule="!has(self.to) || self.from < self.to",message="from must be before to, for example `time: {from: '2026-11-21T00:00:00Z', to: '2026-11-22T00:00:00Z'}`"
type ReplayTime struct {
	// from is the time of the first message (RFC 3339), for example 2026-11-21T00:00:00Z.
	// +required
	From metav1.Time `json:"from"`
	// to is the time before which the last message was stored (RFC 3339). Left out, it is when the Replay begins.
	// +optional
	To *metav1.Time `json:"to,omitempty"`
}

// ReplaySequences is a range of sequences, both ends included.
// +kubebuilder:validation:XValidation:rule="!has(self.last) || self.first <= self.last",message="first must not exceed last, for example `sequences: {first: 1000, last: 1999}`"
type ReplaySequences struct {
	// first sequence, from 1.
	// +required
	// +kubebuilder:validation:Minimum=1
	First int64 `json:"first"`
	// last sequence. Left out, it is the newest when the Replay begins.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Last *int64 `json:"last,omitempty"`
}

// ReplayDeadLetters selects dead letters of the destination. Those that satisfy every field that is set are meant.
type ReplayDeadLetters struct {
	// reasons for which the messages died: StepFailed, Malformed, Rejected, AttemptsExhausted and the others that docs/replay.md lists.
	// Left out, any.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^[A-Z][A-Za-z]*$')",message="a reason is one word that begins with a capital, for example StepFailed"
	Reasons []string `json:"reasons,omitempty"`
	// time in which the messages died. Left out, any.
	// +optional
	Time *ReplayTime `json:"time,omitempty"`
	// ids of the messages, as in `from.ids`. Left out, any.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=500
	IDs []MessageID `json:"ids,omitempty"`
	// keep the dead letters instead of removing each once its message is on the bus again. A later Replay then finds them once more.
	// +optional
	Keep *bool `json:"keep,omitempty"`
}

// ReplayStatus is what was found.
type ReplayStatus struct {
	// observedGeneration is the generation that the conditions speak of; -1 means not seen yet.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions that apply: Accepted, ResolvedRefs, Programmed, Suspended, Complete and Ready; Failed, Reconciling and Stalled while true.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// to names Route and destination as arrests/court, for the printer.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	To string `json:"to,omitempty"`
	// progress is how many messages are on the bus again, of how many, as 420/1000.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Progress string `json:"progress,omitempty"`
	// counts of messages, once they were counted.
	// +optional
	Counts *ReplayCounts `json:"counts,omitempty"`
	// plan is what the Replay covers, fixed when it began.
	// +optional
	Plan *ReplayPlan `json:"plan,omitempty"`
	// lastSequence of the stream that is read, up to which every message that was selected is on the bus again. The Replay goes on behind it
	// after an interruption.
	// +optional
	LastSequence int64 `json:"lastSequence,omitempty"`
	// lastCopy is the sequence in the Integration's stream that the last message which was put there has.
	// +optional
	LastCopy int64 `json:"lastCopy,omitempty"`
	// startedAt is when the Replay began.
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`
	// completedAt is when it was complete or had failed.
	// +optional
	CompletedAt *metav1.Time `json:"completedAt,omitempty"`
}

// ReplayCounts are numbers of messages.
type ReplayCounts struct {
	// matched is how many messages were selected and found.
	// +optional
	Matched int64 `json:"matched"`
	// sent is how many of them are on the bus again: confirmed, and stored once.
	// +optional
	Sent int64 `json:"sent"`
	// remaining is how many are still to be sent.
	// +optional
	Remaining int64 `json:"remaining"`
	// missing is how many ids or sequences that were named the bus does not hold (any more), and how many messages it trimmed while the
	// Replay was suspended or the bus was nearly full.
	// +optional
	Missing int64 `json:"missing"`
}

// ReplayPlan is what a Replay covers, fixed when it began.
type ReplayPlan struct {
	// stream that is read.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Stream string `json:"stream,omitempty"`
	// streamCreated is when it was made. Should it be made anew, the Replay fails.
	// +optional
	StreamCreated metav1.Time `json:"streamCreated,omitempty,omitzero"`
	// routeUID of the Route. Should it be replaced by another of its name, the Replay fails.
	// +optional
	RouteUID types.UID `json:"routeUID,omitempty"`
	// destination of the Route.
	// +optional
	Destination ObjectName `json:"destination,omitempty"`
	// firstSequence and lastSequence bound what is read, both included.
	// +optional
	FirstSequence int64 `json:"firstSequence"`
	// lastSequence is below firstSequence when there is nothing.
	// +optional
	LastSequence int64 `json:"lastSequence"`
	// trimmed is how many of the sequences that were asked for the stream did not hold any more.
	// +optional
	Trimmed int64 `json:"trimmed,omitempty"`
	// oldest is when the oldest message that the stream still held was stored.
	// +optional
	Oldest *metav1.Time `json:"oldest,omitempty"`
	// copiesAfter is the newest sequence of the Integration's stream at the beginning: what the Replay puts there comes behind it.
	// +optional
	CopiesAfter int64 `json:"copiesAfter"`
}
