package v1alpha1

// Enrich adds to each message what is known elsewhere. The body is a JSON object, and gets one more member. While what is asked does not
// answer, the message waits; it is asked again for each attempt that begins anew, so that asking must change nothing.
// +kubebuilder:validation:XValidation:rule="has(self.call) != has(self.table)",message="say who is asked, a service or a table, for example `enrich: {call: {connector: person-lookup, path: '/persons/{data.personId}'}, into: person}` or `enrich: {table: {name: wards, key: data.ward}, into: ward}`"
type Enrich struct {
	// call asks a service Connector of this namespace, which the Route's pods may then call, and no other.
	// +optional
	Call *EnrichCall `json:"call,omitempty"`
	// table of the Integration in which an entry is looked up. What was written a moment ago may not be there yet.
	// +optional
	Table *EnrichTable `json:"table,omitempty"`
	// into names the member of the body that the answer becomes, with dots between the names of nested objects, for example `person` or
	// `detainee.record`. Objects on the way that are missing are made; a member that is there is replaced.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z_][A-Za-z0-9_-]*([.][A-Za-z_][A-Za-z0-9_-]*){0,7}$')",message="into is at most 8 names of letters, digits, - and _ with dots between them, for example detainee.record"
	Into string `json:"into"`
	// default is a CEL expression whose value takes the answer's place where the service answers 404 or 410, or the table has no entry, for example `null` or
	// `{"risk": "unknown"}`. Left out, such a message goes to the dead letters.
	// +optional
	Default Expression `json:"default,omitempty"`
	// timeout for each call or lookup, from 100ms to 30s, by default 3s. The service's own timeout may be shorter.
	// +optional
	// +default="3s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('30s')",message="timeout must be between 100ms and 30s, for example 3s"
	Timeout Duration `json:"timeout,omitempty"`
	// cache keeps answers and entries in each pod; left out, every message is asked for.
	// +optional
	Cache *EnrichCache `json:"cache,omitempty"`
}

// EnrichCall is the request that is made of each message.
// +kubebuilder:validation:XValidation:rule="!has(self.body) || (has(self.method) && self.method == 'POST')",message="a request with a body has `method: POST`"
type EnrichCall struct {
	// connector of this namespace with a service.
	// +required
	Connector ObjectName `json:"connector"`
	// method of the request: GET (the default), or POST for a question that has a body.
	// +optional
	// +default="GET"
	Method EnrichMethod `json:"method,omitempty"`
	// path below the service's own, for example `/persons/{data.personId}`. Values are percent-encoded; an empty one is an error.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:XValidation:rule="self.startsWith('/')",message="path must begin with /; parameters go into query"
	Path Template `json:"path,omitempty"`
	// query gives values to parameters by name, for example `{full: '1', court: '{data.court.code}'}`. Both are percent-encoded.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.size() >= 1 && k.size() <= 128)",message="the name of a parameter has 1 to 128 characters"
	Query map[string]Template `json:"query,omitempty"`
	// headers of the request, by name. Credentials are the service Connector's own.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^[A-Za-z0-9-]{1,128}$') && !(k.lowerAscii() in ['host', 'content-length', 'content-type', 'transfer-encoding', 'connection', 'upgrade', 'te', 'trailer', 'authorization', 'proxy-authorization', 'cookie']))",message="header names are letters, digits and '-'; what concerns the connection and credentials is not the Route's to set (credentials go into spec.auth of the service Connector)"
	Headers map[string]Template `json:"headers,omitempty"`
	// body is a CEL expression whose value is the JSON body of a POST, for example `{"id": data.personId}`.
	// +optional
	Body Expression `json:"body,omitempty"`
}

// EnrichMethod of a request that asks.
// +kubebuilder:validation:Enum=GET;POST
type EnrichMethod string

// The methods.
const (
	EnrichMethodGet  EnrichMethod = "GET"
	EnrichMethodPost EnrichMethod = "POST"
)

// EnrichCache of answers of 2xx, by the whole request, or of entries, by their key. The one that was not asked for longest goes first.
type EnrichCache struct {
	// ttl for which an answer is kept, from 1s to 24h, for example 5m.
	// +required
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('24h')",message="ttl must be between 1s and 24h, for example 5m"
	TTL Duration `json:"ttl"`
	// entries that each pod keeps at most, from 1 to 100000, by default 1000. All caches of a pod take 16 MiB at most together.
	// +optional
	// +default=1000
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	Entries *int32 `json:"entries,omitempty"`
}
