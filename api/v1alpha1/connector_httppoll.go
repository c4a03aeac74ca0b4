package v1alpha1

// HTTPPollSource asks an HTTP system again and again (GET), and makes messages of what is new. How far it has come is kept on the broker.
type HTTPPollSource struct {
	// url that is asked: scheme, host, path and query, for example https://court.example/api/changes?limit=200. Links to further pages are followed
	// within its scheme, host and port only, and redirects are not followed.
	// +required
	// +kubebuilder:validation:MinLength=8
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self.matches('^https?://[^/{}@?#[:space:][:cntrl:]]+(/[^{}?#[:space:][:cntrl:]]*)?([?][^{}#[:space:][:cntrl:]]*)?$')",message="url must be http:// or https://, a host, and at most a path and a query, without user:password@, # or {..}"
	URL string `json:"url"`
	// interval from the end of one round to the next, by default 1m, from 100ms to 24h. Pages that follow each other, and items that came in meanwhile, are
	// asked for at once. While the system fails it is asked again after 30s at the latest, unless it says Retry-After.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('24h')",message="interval must be between 100ms and 24h, for example 1m"
	Interval *Duration `json:"interval,omitempty"`
	// timeout of one answer, by default 30s, from 100ms to 5m.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('5m')",message="timeout must be between 100ms and 5m, for example 30s"
	Timeout *Duration `json:"timeout,omitempty"`
	// headers of each request, for example Accept-Language. Credentials go into spec.auth.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^[A-Za-z0-9-]{1,128}$') && !(k.lowerAscii() in ['host', 'authorization', 'content-length', 'transfer-encoding', 'connection', 'keep-alive', 'proxy-connection', 'proxy-authenticate', 'proxy-authorization', 'proxy-authentication-info', 'te', 'trailer', 'upgrade', 'http2-settings', 'alt-svc', 'expect', 'if-none-match', 'if-modified-since']))",message="header names are letters, digits and '-'; Host, Content-Length, Authorization, If-None-Match, If-Modified-Since and what concerns one connection only are set by the connector (credentials go into spec.auth)"
	Headers map[string]HeaderValue `json:"headers,omitempty"`
	// items says how the answer, a JSON document, lists items: each new one is a message. Left out, the answer as a whole is a message whenever it is
	// another than before.
	// +optional
	Items *HTTPPollItems `json:"items,omitempty"`
}

// HTTPPollItems finds the items of an answer, and which of them are new.
type HTTPPollItems struct {
	// list is a CEL expression that yields the list of an answer (data), for example data.items, or data where the answer is the list. At most 10000.
	// +required
	List Expression `json:"list"`
	// id is a CEL expression that yields what an item (data) is called, a text or a number, for example data.id. It is the message's subject and, unless
	// the source says otherwise, its partition key.
	// +required
	ID Expression `json:"id"`
	// cursor is how far the list has been read, and how the system is asked for what comes after.
	// +required
	Cursor HTTPPollCursor `json:"cursor"`
	// nextPage is a CEL expression that yields the address of the next page of an answer (data), for example data.links.next; null, an empty text or a
	// missing field say that there is none. Left out, it is the header Link with rel=next, if there is one.
	// +optional
	NextPage Expression `json:"nextPage,omitempty"`
}

// HTTPPollCursor is where in its list a system is to go on.
// +kubebuilder:validation:XValidation:rule="has(self.item) != has(self.answer)",message="set exactly one of item, for example `item: data.updatedAt`, and answer, for example `answer: data.nextCursor`"
// +kubebuilder:validation:XValidation:rule="!has(self.item) || has(self.parameter)",message="an item's cursor is asked with: name the parameter of the query, for example `parameter: since`"
type HTTPPollCursor struct {
	// item is a CEL expression that yields a text, number or time of each item (data) that grows from item to item, for example data.updatedAt. The system
	// must list the items in that order. Items with the cursor of the last one may come again: they are known by their id, up to 180 with one cursor.
	// +optional
	Item Expression `json:"item,omitempty"`
	// answer is a CEL expression that yields the cursor of an answer (data), for example data.nextCursor. Where it yields null, an empty text or the same as
	// before, the same is asked again.
	// +optional
	Answer Expression `json:"answer,omitempty"`
	// parameter of the query that carries the cursor, for example since. Left out, the cursor of an answer is the address that is asked next.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_.$~\[\]-]+$`
	Parameter string `json:"parameter,omitempty"`
	// start is the cursor of the very first request, for example 2026-01-01T00:00:00Z. Left out, that has none.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Start string `json:"start,omitempty"`
}
