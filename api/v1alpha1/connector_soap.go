package v1alpha1

import (
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// SOAPNames say how the element in an envelope's Body and JSON become each other: elements are members, attributes members that begin with @, as the
// step `convert` has it. Names in JSON have the prefixes that are declared here, whatever prefixes are used in the envelope.
type SOAPNames struct {
	// namespace of the names that have no prefix in JSON, for example urn:police:custody:1.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Namespace string `json:"namespace,omitempty"`
	// prefixes of other namespaces, for example `{person: 'urn:police:person:2'}`: its elements are called `person:Surname` in JSON. A name of a
	// namespace that is not declared loses its prefix. xsi and xml are known.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^[A-Za-z_][A-Za-z0-9_.-]{0,31}$') && !(k.lowerAscii() in ['xml', 'xmlns']))",message="a prefix is 1 to 32 letters, digits, '_', '.' and '-' and begins with a letter or '_', for example `prefixes: {person: 'urn:police:person:2'}`"
	Prefixes map[string]SOAPNamespace `json:"prefixes,omitempty"`
	// arrays are the names of elements, as in JSON, that become arrays even where there is only one.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	Arrays []string `json:"arrays,omitempty"`
	// order of elements where XML is made, by their names as in JSON: XML Schema sequences ask for one. Those that are named come first, others
	// follow in the order of the JSON.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	Order []string `json:"order,omitempty"`
}

// SOAPNamespace is the URI of a namespace, at most 1024 characters.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=1024
type SOAPNamespace string

// SOAPSecurity is how the user name and password of `auth.basic` travel. None: in HTTP's own header. UsernameToken: in the envelope, as WS-Security
// has it; a listener takes the password as text or as digest, a sink or service sends text. UsernameTokenDigest: as digest only,
// with a nonce that is taken once.
// +kubebuilder:validation:Enum=None;UsernameToken;UsernameTokenDigest
type SOAPSecurity string

// The kinds of security.
const (
	SOAPSecurityNone          SOAPSecurity = "None"
	SOAPSecurityUsernameToken SOAPSecurity = "UsernameToken"
	SOAPSecurityDigest        SOAPSecurity = "UsernameTokenDigest"
)

// SOAPSource listens for SOAP 1.1 and 1.2. The element within the Body is the message: as JSON, or with `format: XML` as it is. What is refused is
// answered with a fault of the caller's version. The operator makes a Service of the Connector's name, port 80, or 443 with tls.
// +kubebuilder:validation:XValidation:rule="!has(self.response) || !has(self.exchange) || self.exchange != 'RequestReply'",message="with `exchange: RequestReply` the Route's service answers: leave response out"
type SOAPSource struct {
	// path that is accepted, exactly, by default /. Others get 404.
	// +optional
	// +default="/"
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^/[A-Za-z0-9/._~-]*$`
	Path string `json:"path,omitempty"`
	// exchange is OneWay (the default: a request becomes a message on the bus, and is answered when the broker has it) or RequestReply (a
	// request is answered by the service that a Route with `call` names; its JSON or XML becomes the Body of the answer, a problem a fault).
	// +optional
	// +default="OneWay"
	Exchange Exchange `json:"exchange,omitempty"`
	// maxBodySize of an envelope, above which it is refused, by default 1Mi and at most 8Mi.
	// +optional
	// +default="1Mi"
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('8Mi')) <= 0 && quantity(string(self)).compareTo(quantity('1')) >= 0",message="maxBodySize must be between 1 and 8Mi, for example 4Mi"
	MaxBodySize *resource.Quantity `json:"maxBodySize,omitempty"`
	// allowFrom limits who can reach the listener on the network (a NetworkPolicy's peers). Left out, every pod and address can.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	AllowFrom []networkingv1.NetworkPolicyPeer `json:"allowFrom,omitempty"`
	// security is how callers show who they are: None (the default, `auth` is HTTP's), UsernameToken or UsernameTokenDigest (the user name and
	// password of `auth.basic` are asked for in the envelope).
	// +optional
	// +default="None"
	Security SOAPSecurity `json:"security,omitempty"`
	// wsdl that is served at the path with `?wsdl`. Left out, there is none.
	// +optional
	WSDL *WSDL `json:"wsdl,omitempty"`
	// response is the element that a OneWay request is answered with, for callers that expect one, for example
	// `<RegisterArrestResponse xmlns="urn:police:custody:1"/>`. Left out, the answer is 202 without a body.
	// +optional
	// +kubebuilder:validation:MinLength=4
	// +kubebuilder:validation:MaxLength=8192
	Response string `json:"response,omitempty"`

	SOAPNames `json:",inline"`
}

// WSDL describes a listener to its callers. It is served as it is: requests are not held to it.
type WSDL struct {
	// inline is the document itself, at most 131072 characters. What it imports must be reachable elsewhere.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=131072
	Inline string `json:"inline"`
	// address under which callers reach the listener, for example https://bus.police.example/custody. It takes the place of every
	// `location` of an `address` element. Left out, those stay.
	// +optional
	// +kubebuilder:validation:MinLength=8
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self.matches('^https?://[^/[:space:][:cntrl:]]+(/[^[:space:][:cntrl:]]*)?$')",message="address must be an http:// or https:// URL, for example https://bus.police.example/custody"
	Address string `json:"address,omitempty"`
}

// SOAPSink calls a SOAP system with each message. An envelope without a fault, or 2xx without a body, means delivered.
// +kubebuilder:validation:XValidation:rule="!has(self.call) || !has(self.call.content) || self.call.content != 'Envelope' || !has(self.security) || self.security == 'None'",message="with `content: Envelope` messages have headers of their own: leave security out, or set `call: {content: Element}`"
type SOAPSink struct {
	// url of the system's endpoint.
	// +required
	// +kubebuilder:validation:MinLength=8
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self.matches('^https?://[^/{}@?#[:space:][:cntrl:]]+(/[^{}?#[:space:][:cntrl:]]*)?$')",message="url must be http:// or https://, a host and at most a path, without user:password@, query or {..}"
	URL string `json:"url"`
	// security is how the Connector shows who it is: None (the default, `auth` is HTTP's), UsernameToken or UsernameTokenDigest (the user
	// name and password of `auth.basic` go into the envelope).
	// +optional
	// +default="None"
	Security SOAPSecurity `json:"security,omitempty"`
	// call that is made of each message. A Route's destination may replace it.
	// +optional
	Call *SOAPCall `json:"call,omitempty"`
}

// SOAPVersion is 1.1 or 1.2.
// +kubebuilder:validation:Enum="1.1";"1.2"
type SOAPVersion string

// SOAPAddressing says whether envelopes have headers of WS-Addressing.
// +kubebuilder:validation:Enum=None;Headers
type SOAPAddressing string

// SOAPContent says what is in the body of a message.
// +kubebuilder:validation:Enum=Element;Envelope
type SOAPContent string

// The kinds of content.
const (
	SOAPContentElement  SOAPContent = "Element"
	SOAPContentEnvelope SOAPContent = "Envelope"
)

// SOAPCall says how a message becomes an envelope, and what faults mean. The body is XML, one element; or JSON, an object with one member, the element.
// +kubebuilder:validation:XValidation:rule="!has(self.content) || self.content != 'Envelope' || (!has(self.__namespace__) && !has(self.prefixes) && !has(self.arrays) && !has(self.order) && (!has(self.addressing) || self.addressing == 'None'))",message="with `content: Envelope` messages are sent as they are: leave addressing, namespace, prefixes, arrays and order out, for example `{version: '1.1', action: 'urn:court:SubmitCase', content: Envelope}`"
type SOAPCall struct {
	// version of SOAP, 1.1 (the default) or 1.2.
	// +optional
	// +default="1.1"
	Version SOAPVersion `json:"version,omitempty"`
	// action of the call, as the WSDL's binding says, with `{expression}` over the message if need be, for example urn:court:SubmitCase. It
	// goes into the header SOAPAction, or the content type of 1.2.
	// +optional
	// +kubebuilder:validation:MinLength=1
	Action Template `json:"action,omitempty"`
	// addressing is None (the default) or Headers: WS-Addressing's Action, To and MessageID, which is the same whenever a message is sent again.
	// +optional
	// +default="None"
	Addressing SOAPAddressing `json:"addressing,omitempty"`
	// content is Element (the default: the body of a message goes into the Body of an envelope that is made for it) or Envelope (it is an envelope
	// itself, as XML and of `version`, and is sent byte for byte with the headers and signatures that it has).
	// +optional
	// +default="Element"
	Content SOAPContent `json:"content,omitempty"`
	// retryOn are codes of faults that may pass, by their local names, for example [Locked]. By default Server, Receiver and codes of the
	// system's own are tried again, Client and Sender are not.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	RetryOn []string `json:"retryOn,omitempty"`
	// rejectOn are codes of faults, subcodes too, that by default are tried again, and here mean that the message will never be accepted.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	RejectOn []string `json:"rejectOn,omitempty"`

	SOAPNames `json:",inline"`
}

// SOAPService calls a SOAP system for its callers: the body of a call, JSON or XML, goes into the envelope's Body, and the answer's Body comes back in the
// same format. A fault is a problem (RFC 9457) with the fault in it: 400 when the system blames the sender, else 502. Method, path and
// query of a call are not sent.
type SOAPService struct {
	// url of the system's endpoint.
	// +required
	// +kubebuilder:validation:MinLength=8
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self.matches('^https?://[^/{}@?#[:space:][:cntrl:]]+(/[^{}?#[:space:][:cntrl:]]*)?$')",message="url must be http:// or https://, a host and at most a path, without user:password@, query or {..}"
	URL string `json:"url"`
	// healthPath is asked for by GET to know whether the system works: 2xx and 3xx say so. It is added to the host, for example
	// /court?wsdl. Left out, connecting is enough.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self.matches('^/[^#[:space:][:cntrl:]]*$')",message="healthPath must begin with / and hold neither spaces nor #, for example /court?wsdl"
	HealthPath string `json:"healthPath,omitempty"`
	// security is how the Connector shows who it is: None (the default, `auth` is HTTP's), UsernameToken or UsernameTokenDigest (the user
	// name and password of `auth.basic` go into the envelope).
	// +optional
	// +default="None"
	Security SOAPSecurity `json:"security,omitempty"`
	// call that is made of each request.
	// +optional
	Call *SOAPServiceCall `json:"call,omitempty"`
}

// SOAPServiceCall says how a request becomes an envelope.
type SOAPServiceCall struct {
	// version of SOAP, 1.1 (the default) or 1.2.
	// +optional
	// +default="1.1"
	Version SOAPVersion `json:"version,omitempty"`
	// action of the call, as the WSDL's binding says, with `{expression}` over the request if need be, for example urn:court:FindCase.
	// +optional
	// +kubebuilder:validation:MinLength=1
	Action Template `json:"action,omitempty"`
	// addressing is None (the default) or Headers: WS-Addressing's Action, To and a MessageID for each call.
	// +optional
	// +default="None"
	Addressing SOAPAddressing `json:"addressing,omitempty"`

	SOAPNames `json:",inline"`
}
