package v1alpha1

import corev1 "k8s.io/api/core/v1"

// CustomContainer is a container of your own, which runs beside MetIP's in each pod and knows a system that MetIP does not. The two talk HTTP over the
// pod's loopback, by the contract in docs/connectors/custom.md; auth and tls of the Connector are files under METIP_SECRETS there. It runs as the
// restricted Pod Security Standard asks: as another user than root, on a read-only file system with a writable /tmp.
type CustomContainer struct {
	// image of the container, for example registry.example/metip/registry:1.4. The operator runs those that its --custom-images flag lists, and no other.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-zA-Z0-9][a-zA-Z0-9._:/@-]*$')",message="image is a name with a tag or a digest, for example registry.example/metip/registry:1.4"
	Image string `json:"image"`
	// command of the container, in place of the image's own.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=4096
	Command []string `json:"command,omitempty"`
	// args of the command.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=4096
	Args []string `json:"args,omitempty"`
	// env of the container, for example `[{name: REGISTRY, value: "registry.example:7000"}]`. Passwords do not belong here: they go into auth.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Env []CustomEnv `json:"env,omitempty"`
	// resources of the container. Left out, it requests 10m of CPU and 32Mi of memory, and is limited to 256Mi.
	// +optional
	Resources *CustomResources `json:"resources,omitempty"`
	// ports that the container connects to, for example [7000]: outside the cluster the pod's NetworkPolicy lets it reach no
	// other.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:Minimum=1
	// +kubebuilder:validation:items:Maximum=65535
	Ports []int32 `json:"ports,omitempty"`
}

// CustomResources of a container, as Kubernetes has them.
type CustomResources struct {
	// requests of cpu and memory, for example `{cpu: 10m, memory: 64Mi}`.
	// +optional
	// +kubebuilder:validation:MaxProperties=4
	Requests corev1.ResourceList `json:"requests,omitempty"`
	// limits of cpu and memory, for example `{memory: 512Mi}`.
	// +optional
	// +kubebuilder:validation:MaxProperties=4
	Limits corev1.ResourceList `json:"limits,omitempty"`
}

// CustomEnv is a variable of the container's environment.
type CustomEnv struct {
	// name of the variable. Those that begin with METIP_ are MetIP's.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z_][A-Za-z0-9_]*$') && !self.startsWith('METIP_')",message="a variable is letters, digits and _, and does not begin with METIP_, which MetIP sets"
	Name string `json:"name"`
	// value of the variable, as it is.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Value string `json:"value,omitempty"`
}

// CustomSource takes in what a container of your own posts.
type CustomSource struct {
	CustomContainer `json:",inline"`
	// position lets the container keep on the bus how far it has read, for a system that does not remember that itself. Left out, it cannot.
	// +optional
	Position bool `json:"position,omitempty"`
}

// CustomSink posts each message to a container of your own.
type CustomSink struct {
	CustomContainer `json:",inline"`
	// request that is made of each message. A Route's destination may replace it.
	// +optional
	Request *CustomRequest `json:"request,omitempty"`
}

// CustomRequest is what the container is told besides the message.
type CustomRequest struct {
	// path that is added to /messages, with query if need be, for example `/cases/{data.id}?force=true`.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:XValidation:rule="self.startsWith('/') || self.startsWith('?')",message="path must begin with / or ?"
	Path Template `json:"path,omitempty"`
	// headers of the request, by name, for example `{X-Queue: "{data.queue}"}`.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^[Xx]-[A-Za-z0-9-]{1,126}$'))",message="the names of these headers begin with X-; the others are the contract's"
	Headers map[string]Template `json:"headers,omitempty"`
}

// CustomService passes calls on to a container of your own.
type CustomService struct {
	CustomContainer `json:",inline"`
}
