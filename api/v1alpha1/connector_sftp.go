package v1alpha1

// SFTPConnection says where an SFTP server is, and how it is known.
type SFTPConnection struct {
	// host of the server: a name or an address, for example files.court.example.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9.:_-]+$`
	Host string `json:"host"`
	// port of the server, by default 22.
	// +optional
	// +default=22
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`
	// hostKeys of the server, as fingerprints: SHA256:... as `ssh-keyscan files.court.example | ssh-keygen -lf -` prints them. A server that shows another key is
	// not spoken to. Several let a key be replaced without a gap.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^SHA256:[A-Za-z0-9+/]{43}$')",message="a host key is SHA256: and 43 characters, as `ssh-keyscan <host> | ssh-keygen -lf -` prints it"
	// +kubebuilder:validation:items:MaxLength=50
	HostKeys []string `json:"hostKeys"`
}

// SFTPBase is a folder of the server: /data/exchange, or exchange below the folder where the user logs in.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=512
// +kubebuilder:validation:XValidation:rule="!self.matches('(^|/)[.][.]?(/|$)') && !self.matches('.+/$') && !self.contains('//')",message="write a path as /data/exchange or exchange: without . and .., and without / at the end"
type SFTPBase string

// SFTPSource takes in the files of one folder of an SFTP server: each as a message, or each of its records. What was taken in goes to the done folder,
// what cannot be to the failed folder, with the reason beside it.
// +kubebuilder:validation:XValidation:rule="!has(self.doneFolder) || !has(self.done) || self.done == 'Move'",message="files that are deleted go to no folder: leave doneFolder out, or write `done: Move`"
// +kubebuilder:validation:XValidation:rule="!has(self.charset) || has(self.records.whole) || !self.charset.startsWith('UTF-16')",message="records are not found in UTF-16: write `records: {whole: {}}`, and convert and split in a Route"
// +kubebuilder:validation:XValidation:rule="!has(self.folder) || ((!has(self.doneFolder) || self.doneFolder != self.folder) && (!has(self.failedFolder) || self.failedFolder != self.folder))",message="doneFolder and failedFolder are other folders than the one that is read, for example in/arrests/done"
// +kubebuilder:validation:XValidation:rule="!has(self.records.whole) || !has(self.records.whole.maxSize) || quantity(string(self.records.whole.maxSize)).compareTo(quantity('8Mi')) <= 0",message="maxSize of a file of SFTP must be at most 8Mi"
type SFTPSource struct {
	// connection to the server.
	// +required
	Connection SFTPConnection `json:"connection"`
	// base that folder, doneFolder and failedFolder are below, for example /data/exchange. Left out, it is where the user logs in.
	// +optional
	Base SFTPBase `json:"base,omitempty"`

	FilesIntake `json:",inline"`
}

// SFTPSink writes each message to a file of an SFTP server.
type SFTPSink struct {
	// connection to the server.
	// +required
	Connection SFTPConnection `json:"connection"`
	// base that files are written below, for example /data/exchange. Left out, it is where the user logs in.
	// +optional
	Base SFTPBase `json:"base,omitempty"`
	// write says what becomes of each message. A Route's destination may replace it.
	// +required
	Write FilesFile `json:"write"`
}
