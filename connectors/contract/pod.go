package contract

// Where the operator mounts what a connector pod reads, and what the pod listens on.
const (
	// ConfigFile holds the Config.
	ConfigFile = "/etc/metip/config/config.json"
	// BrokerCredsFile holds the pod's broker user (NATS .creds format: JWT and seed).
	BrokerCredsFile = "/etc/metip/broker/user.creds"
	// SystemDir holds the user's own Secrets, one file for each use, see the File constants. Every file is optional, so that the
	// pod itself can say what is missing.
	SystemDir = "/etc/metip/system"

	// VolumeDir is where the volume of a system is mounted that works on one.
	VolumeDir = "/var/lib/metip/volume"

	FileUsername = "username"
	FilePassword = "password"
	FileToken    = "token"
	FileHMACKey  = "hmac-key"
	FileSSHKey   = "ssh-key"
	FileCA       = "ca.crt"
	FileTLSCert  = "tls.crt"
	FileTLSKey   = "tls.key"

	// PortListener is where a connector that listens is reached.
	PortListener = 8080
	// PortHealth serves /healthz, /readyz and /metrics.
	PortHealth = 9090
	// PortCustomBus of the loopback is where the pod takes what a custom container posts, and PortCustomContainer is where that container is asked.
	PortCustomBus       = 9410
	PortCustomContainer = 9411

	// What a custom container finds in its environment: its role (Source, Sink or Service), the port of the loopback to listen at, the base URL to
	// post to, and the folder of the user's own Secrets.
	EnvCustomRole    = "METIP_ROLE"
	EnvCustomPort    = "METIP_PORT"
	EnvCustomBus     = "METIP_BUS"
	EnvCustomSecrets = "METIP_SECRETS"

	// EnvPodName holds the pod's own name (downward API).
	EnvPodName = "POD_NAME"
	// EnvCollectorEndpoint is the OTLP/HTTP base URL of the collector that spans go to; without it a pod makes none, and passes on the trace
	// context that a message came with. EnvTraceRatio is the share, from 0 to 1, of the traces that begin in the pod and are sampled; what comes
	// with a trace context is sampled as that says. EnvMetricsExporter is otlp where the collector is to have the pod's metrics too, each
	// EnvMetricsInterval milliseconds. All are OpenTelemetry's own names.
	EnvCollectorEndpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
	EnvTraceRatio        = "OTEL_TRACES_SAMPLER_ARG"
	EnvMetricsExporter   = "OTEL_METRICS_EXPORTER"
	EnvMetricsInterval   = "OTEL_METRIC_EXPORT_INTERVAL"

	// PodAnnotationRefresh is changed by the operator to make the kubelet re-read the mounted Secrets at once.
	PodAnnotationRefresh = "bus.metip.dev/refreshed-at"

	// CredentialsSecret is the one Secret of a namespace that the operator keeps; each Connector's user is the key <connector>.creds.
	CredentialsSecret = "metip-credentials"
)
