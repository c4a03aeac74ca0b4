package v1alpha1

// The types of condition. Each kind's status documents which it has. A condition that does not apply is absent.
const (
	// ConditionAccepted says that the spec is valid: what the schema cannot check (expressions, templates) was checked.
	ConditionAccepted = "Accepted"
	// ConditionResolvedRefs says that what the spec names exists and may be used.
	ConditionResolvedRefs = "ResolvedRefs"
	// ConditionProgrammed says that the broker has what the object needs: streams, durable consumers, users.
	ConditionProgrammed = "Programmed"
	// ConditionDeployed says that Kubernetes runs what the object needs.
	ConditionDeployed = "Deployed"
	// ConditionConnected says that the pods report that they talk to their system and to the broker. It is Unknown, never a
	// stale True, when there is no report.
	ConditionConnected = "Connected"
	// ConditionStorageHealthy says that the broker has room and keeps every copy current.
	ConditionStorageHealthy = "StorageHealthy"
	// ConditionSuspended is True while somebody has suspended the object, or the Integration that it belongs to.
	ConditionSuspended = "Suspended"
	// ConditionComplete says that a Replay has put every message on the bus and the destination has taken them: each was delivered,
	// filtered out, or went to the dead letters.
	ConditionComplete = "Complete"
	// ConditionFailed exists, True, only when a Replay cannot go on, ever.
	ConditionFailed = "Failed"
	// ConditionReady sums the others up: data flows.
	ConditionReady = "Ready"
	// ConditionReconciling exists, True, only while the operator is on its way to what the spec wants (kstatus).
	ConditionReconciling = "Reconciling"
	// ConditionStalled exists, True, only while nothing will change until somebody acts (kstatus).
	ConditionStalled = "Stalled"
)

// The reasons of conditions, each with the condition that it is reported in.
const (
	// ReasonPending (any, Unknown): the operator has not seen the object, or waits for something that comes by itself.
	ReasonPending = "Pending"
	// ReasonReady (Ready, True): data flows.
	ReasonReady = "Ready"
	// ReasonAccepted (Accepted, True): the spec is valid.
	ReasonAccepted = "Accepted"
	// ReasonResolved (ResolvedRefs, True): what the spec names exists and may be used.
	ReasonResolved = "Resolved"
	// ReasonProgrammed (Programmed, True): the broker has what the object needs; callers may call.
	ReasonProgrammed = "Programmed"
	// ReasonDeployed (Deployed, True): every pod runs the present configuration.
	ReasonDeployed = "Deployed"
	// ReasonConnected (Connected, True): every pod reports that it is connected.
	ReasonConnected = "Connected"
	// ReasonHealthy (StorageHealthy, True): there is room, and every copy is current.
	ReasonHealthy = "Healthy"
	// ReasonSuspended (Suspended, True; Complete, Ready, False): spec.suspend is set, here or on the Integration.
	ReasonSuspended = "Suspended"
	// ReasonBacklogHeld (Suspended, True): messages wait for the suspended object and count towards the bus's size.
	ReasonBacklogHeld = "BacklogHeld"
	// ReasonNotSuspended (Suspended, False): nothing is suspended.
	ReasonNotSuspended = "NotSuspended"
	// ReasonProgressing (Reconciling, True; Deployed, False): a change is under way.
	ReasonProgressing = "Progressing"

	// ReasonInvalidExpression (Accepted, False; Stalled): a CEL expression, jq program or template does not compile; the message
	// gives field, line and column.
	ReasonInvalidExpression = "InvalidExpression"
	// ReasonInvalidSpec (Accepted, False; Stalled): the spec is invalid in a way that the schema cannot express; the message names the field.
	ReasonInvalidSpec = "InvalidSpec"
	// ReasonInvalidSchema (Accepted, False; Stalled): a schema does not compile; the message gives field, line and column, and the ConfigMap if it
	// is in one. What ran before goes on running.
	ReasonInvalidSchema = "InvalidSchema"
	// ReasonImageNotAllowed (Accepted, False; Stalled): custom.image is not one that the operator's flag lists.
	ReasonImageNotAllowed = "ImageNotAllowed"
	// ReasonAnnotationNotAllowed (Accepted, False; Stalled): template.annotations has one that the operator's flag does not list.
	ReasonAnnotationNotAllowed = "AnnotationNotAllowed"
	// ReasonConfigTooLarge (Accepted, False; Stalled): the compiled configuration exceeds 900 KB.
	ReasonConfigTooLarge = "ConfigTooLarge"

	// ReasonBrokerNotFound (ResolvedRefs, False): there is no such Broker.
	ReasonBrokerNotFound = "BrokerNotFound"
	// ReasonNotAllowed (ResolvedRefs, False): the Broker's allowedNamespaces does not let this namespace in.
	ReasonNotAllowed = "NotAllowed"
	// ReasonTableNotFound (ResolvedRefs, False): a Route names a lookup table that its Integration does not have.
	ReasonTableNotFound = "TableNotFound"
	// ReasonIntegrationNotFound (ResolvedRefs, False): there is no such Integration in this namespace.
	ReasonIntegrationNotFound = "IntegrationNotFound"
	// ReasonRouteNotFound (ResolvedRefs, False): a Replay names a Route that does not exist.
	ReasonRouteNotFound = "RouteNotFound"
	// ReasonDestinationNotFound (ResolvedRefs, False): a Replay names a destination that the Route does not have, or none where it has several.
	ReasonDestinationNotFound = "DestinationNotFound"
	// ReasonConnectorNotFound (ResolvedRefs, False): a Route names a Connector that does not exist.
	ReasonConnectorNotFound = "ConnectorNotFound"
	// ReasonWrongRole (ResolvedRefs, False): a Route reads from what is no source, delivers to what is no sink, or calls what is no service.
	ReasonWrongRole = "WrongRole"
	// ReasonWrongIntegration (ResolvedRefs, False): a Route names a Connector of another Integration.
	ReasonWrongIntegration = "WrongIntegration"
	// ReasonExchangeMismatch (ResolvedRefs, False): a Route with `to` reads a source whose requests are answered, or one with `call` a source
	// that takes messages one way. The message says what to change.
	ReasonExchangeMismatch = "ExchangeMismatch"
	// ReasonOperationMismatch (ResolvedRefs, False): a destination's operation is of another system than its Connector, or does not go with how that is set. The
	// message says what to change.
	ReasonOperationMismatch = "OperationMismatch"
	// ReasonSchemaNotFound (ResolvedRefs, False): there is no such ConfigMap with a schema, or it lacks the key. What ran before goes on running.
	ReasonSchemaNotFound = "SchemaNotFound"
	// ReasonCredentialsNotFound (ResolvedRefs, False): the Secret of an external Broker is missing or lacks a key.
	ReasonCredentialsNotFound = "CredentialsNotFound"

	// ReasonIntegrationNotProgrammed (Programmed, False): the Integration's streams are not there yet.
	ReasonIntegrationNotProgrammed = "IntegrationNotProgrammed"
	// ReasonBrokerNotReady (Programmed, False; Unknown): the Broker does not answer yet.
	ReasonBrokerNotReady = "BrokerNotReady"
	// ReasonInsufficientStorage (Programmed, False): the broker's volumes cannot hold the streams at the size that is asked for.
	ReasonInsufficientStorage = "InsufficientStorage"
	// ReasonProgrammingFailed (Programmed, False): the broker refused; the message says what.
	ReasonProgrammingFailed = "ProgrammingFailed"

	// ReasonNameTaken (Deployed, False; Stalled): an object of the name that is needed exists and is not ours.
	ReasonNameTaken = "NameTaken"
	// ReasonPodsNotReady (Deployed, False): pods are missing or not ready; the message says why.
	ReasonPodsNotReady = "PodsNotReady"
	// ReasonScaledToZero (Deployed, False): replicas is 0.
	ReasonScaledToZero = "ScaledToZero"

	// ReasonNoReport (Connected, Unknown): no pod has reported for a while.
	ReasonNoReport = "NoReport"
	// ReasonBrokerUnreachable (Connected, False or Unknown; StorageHealthy, Unknown): the operator, or the pods, cannot talk to the broker.
	ReasonBrokerUnreachable = "BrokerUnreachable"
	// ReasonConnectionFailed (Connected, False): the system cannot be reached; the message has endpoint and error.
	ReasonConnectionFailed = "ConnectionFailed"
	// ReasonCredentialsMissing (Connected, False): a Secret, or a key of it, is missing; the message names it.
	ReasonCredentialsMissing = "CredentialsMissing"
	// ReasonAuthenticationFailed (Connected, False): the system refuses our credentials.
	ReasonAuthenticationFailed = "AuthenticationFailed"
	// ReasonCertificateInvalid (Connected, False): a certificate does not match, is expired, or chains to another authority.
	ReasonCertificateInvalid = "CertificateInvalid"
	// ReasonSystemError (Connected, False): the system answers, and refuses everything: a missing table, a missing permission.
	ReasonSystemError = "SystemError"
	// ReasonStreamFull (Connected, Complete, False): the bus is full and pushes back; or what room it has left is not a Replay's to take.
	ReasonStreamFull = "StreamFull"
	// ReasonDeadLetterFull (Connected, False): the dead letters are full, so that a Route waits.
	ReasonDeadLetterFull = "DeadLetterFull"
	// ReasonTableFull (Connected, False): a lookup table is full, so that the Route that fills it waits.
	ReasonTableFull = "TableFull"

	// ReasonCounting (Complete, False): a Replay counts the messages that it is about.
	ReasonCounting = "Counting"
	// ReasonReplaying (Complete, False): messages are put on the bus again.
	ReasonReplaying = "Replaying"
	// ReasonDelivering (Complete, False): every message is on the bus again, and the destination has not taken all of them yet.
	ReasonDelivering = "Delivering"
	// ReasonCompleted (Complete, True; Ready, True): the Replay is done.
	ReasonCompleted = "Completed"
	// ReasonReplayFailed (Complete, False): the broker refuses what the Replay asks of it, which is tried again; or the Replay has failed
	// for good. The message says what.
	ReasonReplayFailed = "ReplayFailed"
	// ReasonRouteReplaced (Failed, True; Stalled): another Route has taken the name of the one that the Replay began for.
	ReasonRouteReplaced = "RouteReplaced"
	// ReasonStreamReplaced (Failed, True; Stalled): the stream was made anew since the Replay began, so that its sequences mean nothing now.
	ReasonStreamReplaced = "StreamReplaced"

	// ReasonStorageLow (StorageHealthy, False): what is stored nears its limit.
	ReasonStorageLow = "StorageLow"
	// ReasonReplicasLagging (StorageHealthy, False): a server's copy of a stream is not current.
	ReasonReplicasLagging = "ReplicasLagging"

	// ReasonConnectorsNotReady (Ready, False): a Connector that this object depends on is not ready.
	ReasonConnectorsNotReady = "ConnectorsNotReady"
	// ReasonRoutesNotReady (Ready, False): a Route of the Integration is not ready.
	ReasonRoutesNotReady = "RoutesNotReady"
	// ReasonRelayNotReady (Ready, False): the Integration's relay is not ready; status.relay says why.
	ReasonRelayNotReady = "RelayNotReady"
	// ReasonDeleting (Ready, False): the object is being deleted.
	ReasonDeleting = "Deleting"

	// ReasonDataLeftBehind (Event only): an Integration was released although its data could not be deleted; the message says why.
	ReasonDataLeftBehind = "DataLeftBehind"
)
