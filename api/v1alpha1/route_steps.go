package v1alpha1

// Step is exactly one mediation.
// +kubebuilder:validation:XValidation:rule="[has(self.filter),has(self.transform),has(self.delay),has(self.throttle),has(self.deduplicate),has(self.aggregate),has(self.resequence),has(self.setHeaders),has(self.redact),has(self.wireTap),has(self.recipientList),has(self.loadBalance),has(self.validate),has(self.convert),has(self.split),has(self.enrich)].filter(x, x).size() == 1",message="set exactly one of filter, transform, delay, throttle, deduplicate, aggregate, resequence, setHeaders, redact, wireTap, recipientList, loadBalance, validate, convert, split and enrich, for example `- transform: {jq: '{id: .arrestId}'}`"
type Step struct {
	// name of the step, for errors and traces; left out, it is the step's number.
	// +optional
	Name ObjectName `json:"name,omitempty"`
	// filter is a CEL expression that yields a boolean; messages for which it is false are not delivered.
	// +optional
	Filter Expression `json:"filter,omitempty"`
	// transform makes a new body.
	// +optional
	Transform *Transform `json:"transform,omitempty"`
	// validate refuses a body that is not as it should be: the message goes to the dead letters, with the path and the rule that is broken.
	// +optional
	Validate *Validate `json:"validate,omitempty"`
	// convert turns the body into another format, or another character set.
	// +optional
	Convert *Convert `json:"convert,omitempty"`
	// split makes several deliveries of one message; the steps that follow run on each part. A destination has one split at most.
	// +optional
	Split *Split `json:"split,omitempty"`
	// enrich adds to the body what a service answers.
	// +optional
	Enrich *Enrich `json:"enrich,omitempty"`
	// setHeaders gives values to CloudEvents extensions, by name, for example `{courtcode: '{data.court.code}'}`; `subject` is the event's
	// subject. A value that is empty removes it. What says what the message is (id, source, type, time, ...), its marking and its partition key
	// cannot be set. All values are made of the message as it came to the step.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^[a-z0-9]{1,40}$'))",message="the name of a header is 1 to 40 of a-z and 0-9, as CloudEvents has it, for example `setHeaders: {courtcode: '{data.court.code}'}`"
	// +kubebuilder:validation:XValidation:rule="self.all(k, !(k in ['id', 'source', 'specversion', 'type', 'time', 'data', 'datacontenttype', 'datacontentencoding', 'dataschema', 'marking', 'partitionkey', 'traceparent', 'tracestate']))",message="setHeaders cannot change what says what the message is, its marking, its partition key or its trace: of CloudEvents' own attributes only subject can be set"
	SetHeaders map[string]Template `json:"setHeaders,omitempty"`
	// redact drops or masks fields of a JSON body, wherever it is read and whatever it is read by. It fails closed: a message whose shape the
	// paths do not expect goes to the dead letters.
	// +optional
	Redact *Redact `json:"redact,omitempty"`
	// wireTap gives one destination a copy of each message as it is at this step. That destination gets nothing of what follows; the others
	// do not notice. Only among the Route's own steps, before recipientList and loadBalance.
	// +optional
	WireTap *WireTap `json:"wireTap,omitempty"`
	// recipientList computes which of the destinations get the message. Only among the Route's own steps.
	// +optional
	RecipientList *RecipientList `json:"recipientList,omitempty"`
	// loadBalance gives each message to exactly one of several destinations. Only among the Route's own steps, once.
	// +optional
	LoadBalance *LoadBalance `json:"loadBalance,omitempty"`
	// delay holds the message back until a time. The steps before it are run again then.
	// +optional
	Delay *Delay `json:"delay,omitempty"`
	// throttle bounds how often each destination is delivered to, each by itself. It counts what reaches the system, wherever it stands among
	// the steps.
	// +optional
	Throttle *Throttle `json:"throttle,omitempty"`
	// deduplicate lets the first message of each key pass. As aggregate and resequence, it is the last step of a destination that is an event.
	// +optional
	Deduplicate *Deduplicate `json:"deduplicate,omitempty"`
	// aggregate makes one message of several.
	// +optional
	Aggregate *Aggregate `json:"aggregate,omitempty"`
	// resequence puts messages into the order of a number that they carry.
	// +optional
	Resequence *Resequence `json:"resequence,omitempty"`
}

// Transform makes a new body of the message's body: exactly one of a jq program and a CEL expression.
// +kubebuilder:validation:XValidation:rule="has(self.jq) != has(self.cel)",message="set exactly one of jq and cel, for example `transform: {jq: '{id: .arrestId}'}` or `transform: {cel: '{\"id\": data.arrestId}'}`"
type Transform struct {
	// jq program (https://jqlang.org/manual) that is given the JSON body and whose one result is the new body. `$message` holds id,
	// type, source, subject, time and headers. A program without result filters the message out; more than one result is an error.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16384
	JQ string `json:"jq,omitempty"`
	// cel expression whose value is the new body, for small cases, for example `{"id": data.arrestId, "court": data.court.code}`. Numbers that
	// are taken over by their path keep their text; what is computed is an int, uint or double. Times become RFC 3339, durations seconds
	// ("90s"), bytes base64.
	// +optional
	CEL Expression `json:"cel,omitempty"`
}
