package v1alpha1

// MailEncryption says how a connection to a mail server is encrypted.
// +kubebuilder:validation:Enum=StartTLS;Implicit;Disabled
type MailEncryption string

// The ways to encrypt.
const (
	MailEncryptionStartTLS MailEncryption = "StartTLS"
	MailEncryptionImplicit MailEncryption = "Implicit"
	MailEncryptionDisabled MailEncryption = "Disabled"
)

// MailConnection says where a mail server is that takes messages by SMTP.
type MailConnection struct {
	// host of the server: a name or an address, for example smtp.court.example.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9.:_-]+$`
	Host string `json:"host"`
	// port of the server, by default 587, of Implicit 465, of Disabled 25.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`
	// encryption is StartTLS (the default; a server that does not offer it is refused), Implicit (TLS from the first byte) or Disabled. The certificate is
	// checked against spec.tls.ca or, without it, the public authorities.
	// +optional
	// +default="StartTLS"
	Encryption MailEncryption `json:"encryption,omitempty"`
}

// MailSink submits each message to a mail server, by SMTP. That the server has taken it means delivered, not that somebody has read it.
type MailSink struct {
	// connection to the server.
	// +required
	Connection MailConnection `json:"connection"`
	// send says to whom a message goes, and how it looks. A Route's destination may replace it.
	// +required
	Send MailSend `json:"send"`
}

// MailBody says what a body is.
// +kubebuilder:validation:Enum=Text;HTML
type MailBody string

// MailSend makes a mail of each message. A recipient that the server refuses makes the whole mail fail: nobody gets it.
// +kubebuilder:validation:XValidation:rule="has(self.to) || has(self.cc) || has(self.bcc)",message="a mail goes to somebody: set to, cc or bcc, for example `to: [desk@court.example]`"
type MailSend struct {
	// from is the sender's address, with `{expression}` over the message if need be, for example `Custody <bus@police.example>`.
	// +required
	// +kubebuilder:validation:MinLength=1
	From Template `json:"from"`
	// to lists recipients. Each becomes one address, for example `desk.{data.court.code}@court.example`.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	To []Template `json:"to,omitempty"`
	// cc lists recipients of a copy.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	Cc []Template `json:"cc,omitempty"`
	// bcc lists recipients of a copy whom no header names.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	Bcc []Template `json:"bcc,omitempty"`
	// subject of the mail, for example `Arrest {data.id}`.
	// +required
	// +kubebuilder:validation:MinLength=1
	Subject Template `json:"subject"`
	// body of the mail, for example `{data.person.name} was arrested.`; the values of HTML are escaped. Left out, it is the message's own body, or
	// with an attachment none.
	// +optional
	// +kubebuilder:validation:MinLength=1
	Body Template `json:"body,omitempty"`
	// contentType of the body: Text (the default) or HTML.
	// +optional
	// +default="Text"
	ContentType MailBody `json:"contentType,omitempty"`
	// attachment of the message's own body. A body that is not text in UTF-8 can be sent only so.
	// +optional
	Attachment *MailAttachment `json:"attachment,omitempty"`
	// headers besides those that the connector sets, for example `{Reply-To: desk@police.example}`.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^[A-Za-z0-9_-]{1,64}$') && !k.lowerAscii().matches('^(from|to|cc|bcc|sender|subject|date|message-id|mime-version|received|return-path|dkim-signature|auto-submitted|traceparent|tracestate|content-.*|resent-.*|metip-.*)$'))",message="a header's name is letters, digits, '-' and '_'; those of the mail's way and form (From, Subject, Content-..., Metip-...) are set by the connector"
	Headers map[string]Template `json:"headers,omitempty"`
}

// MailAttachment is a message's body as a file.
type MailAttachment struct {
	// fileName of the attachment, for example `arrest-{data.id}.json`.
	// +required
	// +kubebuilder:validation:MinLength=1
	FileName Template `json:"fileName"`
}
