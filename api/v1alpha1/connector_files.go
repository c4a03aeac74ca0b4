package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
)

// FilesVolume is the volume that files are on. The pod mounts it for reading and writing.
type FilesVolume struct {
	// claimName of a PersistentVolumeClaim of this namespace, for example custody-exchange. The pod waits until it exists and is bound.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	ClaimName string `json:"claimName"`
	// fsGroup is the number of the group that the pod's process belongs to besides, and that Kubernetes gives the volume to where its driver
	// can, for example 2000. Left out, it is what the cluster chooses (OpenShift does) or none, and the volume's folders have to be writable
	// for the connector's user.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2147483647
	FSGroup *int64 `json:"fsGroup,omitempty"`
}

// FilePath is a path within the volume, for example in/arrests: without `..`, and without `/` before or after.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=512
// +kubebuilder:validation:XValidation:rule="!self.matches('(^|/)([.][.]?|[.]metip)?(/|$)')",message="write a path within the volume as in/arrests: without .., ., .metip, and without / before or after"
type FilePath string

// FilesSource takes in the files of one folder of a volume: each as a message, or each of its records. What was taken in goes to the done folder,
// what cannot be to the failed folder, with the reason beside it.
// +kubebuilder:validation:XValidation:rule="!has(self.doneFolder) || !has(self.done) || self.done == 'Move'",message="files that are deleted go to no folder: leave doneFolder out, or write `done: Move`"
// +kubebuilder:validation:XValidation:rule="!has(self.charset) || has(self.records.whole) || !self.charset.startsWith('UTF-16')",message="records are not found in UTF-16: write `records: {whole: {}}`, and convert and split in a Route"
// +kubebuilder:validation:XValidation:rule="!has(self.folder) || ((!has(self.doneFolder) || self.doneFolder != self.folder) && (!has(self.failedFolder) || self.failedFolder != self.folder))",message="doneFolder and failedFolder are other folders than the one that is read, for example in/arrests/done"
type FilesSource struct {
	// volume that the folder is on.
	// +required
	Volume FilesVolume `json:"volume"`

	FilesIntake `json:",inline"`
}

// FilesIntake says which files of a folder are taken in, and when, and what becomes of them.
type FilesIntake struct {
	// folder that is read, without those below it, for example in/arrests. Left out, it is the root.
	// +optional
	Folder FilePath `json:"folder,omitempty"`
	// pattern that a file's name has to match, by default `*`, for example `arrests-*.csv`: `*` is any characters, `?` is one, `[a-z]` is one of these.
	// Names that begin with a dot are never taken, nor are links.
	// +optional
	// +default="*"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="!self.contains('/')",message="pattern is of a file's name, without /: write the folder into folder"
	Pattern string `json:"pattern,omitempty"`
	// records says what becomes a message: the whole file, each line, each row of a table, each line of fixed width, each element of a name.
	// +required
	Records FilesRecords `json:"records"`
	// charset that the files are in, for sources of format JSON or Text; left out, it is UTF-8. Messages are UTF-8 in any case. XML says its own.
	// +optional
	Charset Charset `json:"charset,omitempty"`
	// order in which files are taken that are complete: Name (the default) or Time, the oldest first by their time of modification. One file is
	// taken in after the other.
	// +optional
	// +default="Name"
	Order FilesOrder `json:"order,omitempty"`
	// stableFor is how long size and time of a file must not have changed before it is taken, by default 5s and at most 1h. Write 0s where files
	// are complete when they appear under their name, because whoever writes them renames them then.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('1h')",message="stableFor must be at most 1h, for example 30s"
	StableFor *Duration `json:"stableFor,omitempty"`
	// rescanEvery is how often the folder is looked at where nobody tells of new files, as on NFS and over SFTP; by default 10s, from 1s to 1h.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('1h')",message="rescanEvery must be between 1s and 1h, for example 10s"
	RescanEvery *Duration `json:"rescanEvery,omitempty"`
	// lockSuffix keeps a file from being taken while there is another of its name with this added, for example .lock.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[^/]+$`
	LockSuffix string `json:"lockSuffix,omitempty"`
	// ignoreSuffixes of names of files that are still being written. Left out, they are .tmp, .part and .filepart.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=32
	IgnoreSuffixes []string `json:"ignoreSuffixes,omitempty"`
	// done is what becomes of a file that was taken in: Move (the default, to doneFolder) or Delete.
	// +optional
	// +default="Move"
	Done FilesDone `json:"done,omitempty"`
	// doneFolder for files that were taken in; left out, it is `done` in folder. Nobody empties it but you.
	// +optional
	DoneFolder FilePath `json:"doneFolder,omitempty"`
	// failedFolder for files that cannot be taken in; left out, it is `failed` in folder. Beside each is one with `.error` added that says why.
	// +optional
	FailedFolder FilePath `json:"failedFolder,omitempty"`
}

// FilesOrder of files.
// +kubebuilder:validation:Enum=Name;Time
type FilesOrder string

// FilesDone is what becomes of files that were taken in.
// +kubebuilder:validation:Enum=Move;Delete
type FilesDone string

// FilesRecords is exactly one way to make messages of a file. A line or row is at most 8 MiB, a file of them may have any size.
// +kubebuilder:validation:XValidation:rule="[has(self.whole),has(self.lines),has(self.csv),has(self.fixedWidth),has(self.xml)].filter(x, x).size() == 1",message="set exactly one of whole, lines, csv, fixedWidth and xml, for example `records: {lines: {}}`"
type FilesRecords struct {
	// whole makes one message of each file.
	// +optional
	Whole *FilesWhole `json:"whole,omitempty"`
	// lines makes one message of each line, in the source's format: with JSON, a document a line. Empty lines are passed over.
	// +optional
	Lines *FilesLines `json:"lines,omitempty"`
	// csv makes one message, a JSON object, of each row of a table. All values are strings.
	// +optional
	CSV *FilesCSV `json:"csv,omitempty"`
	// fixedWidth makes one message, a JSON object, of each line whose columns have fixed widths. All values are strings, without the blanks around them.
	// +optional
	FixedWidth *FilesFixedWidth `json:"fixedWidth,omitempty"`
	// xml makes one message of each element of a name, as JSON or, with `format: XML`, as it is, with the declarations of namespaces that it needs.
	// +optional
	XML *FilesXML `json:"xml,omitempty"`
}

// FilesXML says which elements of a document are records. An element within a record is part of it. The document may have any size, a record 8 MiB; it is
// in the character set that it says, other than UTF-16. A document type is refused.
type FilesXML struct {
	// element that is a record, by its name: Arrest for any prefix, c:Arrest for that one.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Element string `json:"element"`
	// arrays are names of elements that become arrays of JSON even where there is only one (docs/formats.md).
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	Arrays []string `json:"arrays,omitempty"`
}

// FilesWhole is for files that are a message each.
type FilesWhole struct {
	// maxSize of a file, by default 1Mi and at most 256Mi; a larger one fails. A file over 8Mi is a claim check (docs/claim-checks.md), so that a
	// maxSize over 8Mi needs `format: Binary`, and neither schema nor partitionKey.
	// +optional
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('256Mi')) <= 0 && quantity(string(self)).compareTo(quantity('1')) >= 0",message="maxSize must be between 1 and 256Mi, for example 4Mi"
	MaxSize *resource.Quantity `json:"maxSize,omitempty"`
}

// FilesLines has no fields.
type FilesLines struct{}

// FilesCSV says how tables are written, as RFC 4180 has it.
type FilesCSV struct {
	// delimiter between fields, one character, by default a comma; a tab is "\t".
	// +optional
	// +default=","
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1
	// +kubebuilder:validation:XValidation:rule="!(self in ['\"', '\\r', '\\n'])",message="delimiter cannot be a quote or a line end"
	Delimiter string `json:"delimiter,omitempty"`
	// header is Present (the default) or Absent: whether the first row of each file names the columns.
	// +optional
	// +default="Present"
	Header CSVHeader `json:"header,omitempty"`
	// columns by their names, in order: those of a table without header; of a table with one, those that it must have. Left out, rows without
	// header become arrays.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	Columns []string `json:"columns,omitempty"`
}

// FilesFixedWidth says which columns a line has.
type FilesFixedWidth struct {
	// columns in order, for example `[{name: id, width: 8}, {name: surname, width: 30}]`. A line may end early; one that is longer fails.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	Columns []FilesColumn `json:"columns"`
}

// FilesColumn is one column of fixed width.
type FilesColumn struct {
	// name of the member that it becomes, for example surname.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Name string `json:"name"`
	// width in characters, from 1 to 65536.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65536
	Width int32 `json:"width"`
}

// FilesSink writes messages to files on a volume.
type FilesSink struct {
	// volume that the files are on.
	// +required
	Volume FilesVolume `json:"volume"`
	// write says what becomes of each message. A Route's destination may replace it.
	// +required
	Write FilesWrite `json:"write"`
}

// FilesWrite is exactly one way to write messages.
// +kubebuilder:validation:XValidation:rule="[has(self.file),has(self.append)].filter(x, x).size() == 1",message="set exactly one of file and append, for example `write: {file: {path: 'out/{data.id}.json'}}`"
type FilesWrite struct {
	// file makes a file of each message. It appears under its name when it is complete and on the disk.
	// +optional
	File *FilesFile `json:"file,omitempty"`
	// append adds each message to a file, as a line: JSON without line breaks; another body that has some goes to the dead letters.
	// +optional
	Append *FilesAppend `json:"append,omitempty"`
}

// FilesFile is a file for each message.
type FilesFile struct {
	// path within the volume, for example `out/{data.unit}/{data.arrestId}.json`. Folders are made. A value that is inserted is part of one
	// name: `/` and other characters that names do not have everywhere are percent-encoded, and one that is empty makes a dead letter.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('/') && !self.endsWith('/')",message="path is within the volume, without / before or after, for example out/{data.id}.json"
	Path Template `json:"path"`
	// exists is what happens where there is such a file: Replace (the default, at once) or Reject: the message goes to the dead letters, unless the
	// file is what it would make.
	// +optional
	// +default="Replace"
	Exists FilesExists `json:"exists,omitempty"`
}

// FilesExists is what happens where a file is there.
// +kubebuilder:validation:Enum=Replace;Reject
type FilesExists string

// FilesAppend is a file of many messages.
type FilesAppend struct {
	// path within the volume, for example `out/arrests.jsonl`, with expressions as in file.path. The file is the Connector's own: nobody else
	// may write to it, and an incomplete last line is cut off.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('/') && !self.endsWith('/')",message="path is within the volume, without / before or after, for example out/arrests.jsonl"
	Path Template `json:"path"`
	// rotate says when the file is renamed to one with the time of its last line in its name, arrests-20260102T030405000000000Z.jsonl, and
	// another one begun. Left out, it grows for ever.
	// +optional
	Rotate *FilesRotate `json:"rotate,omitempty"`
}

// FilesRotate says when a file is full.
// +kubebuilder:validation:MinProperties=1
type FilesRotate struct {
	// size that a file does not exceed, unless one message does, for example 64Mi; at least 1Ki.
	// +optional
	Size *resource.Quantity `json:"size,omitempty"`
	// every is the span of time whose messages a file holds, by the clock in UTC: 1h begins a file at each full hour, 24h at midnight. From 1m to 168h.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m') && duration(self) <= duration('168h')",message="every must be between 1m and 168h, for example 1h"
	Every *Duration `json:"every,omitempty"`
}
