package credentials

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/metadata"
)

// Lifetime of a user, and when before its end it is renewed.
const (
	Lifetime    = 30 * 24 * time.Hour
	RenewBefore = 10 * 24 * time.Hour
)

// Record is what may be known of a Connector's user.
type Record struct {
	// PublicKey of the user.
	PublicKey string `json:"key"`
	// Expires is when the broker stops accepting it.
	Expires time.Time `json:"expires"`
	// Permissions is a digest of what it was issued for.
	Permissions string `json:"permissions"`
	// Broker as namespace/name, and its UID.
	Broker    string    `json:"broker"`
	BrokerUID types.UID `json:"brokerUID"`
	// ConnectorUID of the Connector that it was issued to.
	ConnectorUID types.UID `json:"connectorUID"`
}

// Retired users were replaced and are to be revoked once no pod uses them.
type Retired struct {
	Keys      []string  `json:"keys"`
	Broker    string    `json:"broker"`
	BrokerUID types.UID `json:"brokerUID"`
}

// retiredPrefix and a Connector's name is the annotation with its retired users.
const retiredPrefix = "retired." + metadata.AnnotationUserPrefix

// Key of a Connector in the Secret.
func Key(connector string) string { return connector + ".creds" }

// ConnectorsIn a Secret: the names that it has a user, a key or retired users of, each with a text that changes when any of these does.
func ConnectorsIn(secret client.Object) map[string]string {
	annotations, holding := secret.GetAnnotations(), map[string]bool{}
	for _, e := range secret.GetManagedFields() {
		if name, ok := strings.CutPrefix(e.Manager, userOwner("")); ok {
			_, holding[name] = dataFields(e)["f:"+Key(name)]
		}
	}
	out := map[string]string{}
	for k := range annotations {
		for _, prefix := range []string{retiredPrefix, metadata.AnnotationUserPrefix} {
			if name, ok := strings.CutPrefix(k, prefix); ok {
				out[name] = fmt.Sprint(annotations[metadata.AnnotationUserPrefix+name], annotations[retiredPrefix+name], holding[name])
			}
		}
	}
	return out
}

func userOwner(connector string) string    { return "metip-user-" + connector }
func retiredOwner(connector string) string { return "metip-retired-" + connector }

func decode[T any](annotations map[string]string, key string) *T {
	raw, ok := annotations[key]
	if !ok {
		return nil
	}
	v := new(T)
	if json.Unmarshal([]byte(raw), v) != nil { // somebody else's hand: as good as none
		return nil
	}
	return v
}

// holdsKey tells from the managed fields whether the Secret still has what was written for a Connector.
func holdsKey(secret *metav1.PartialObjectMetadata, connector string) bool {
	for _, e := range secret.ManagedFields {
		if e.Manager != userOwner(connector) || e.FieldsV1 == nil {
			continue
		}
		_, ok := dataFields(e)["f:"+Key(connector)]
		return ok
	}
	return false
}

// isEmpty tells from the managed fields that the Secret has no data.
func isEmpty(secret *metav1.PartialObjectMetadata) bool {
	for _, e := range secret.ManagedFields {
		for k := range dataFields(e) {
			if k != "." {
				return false
			}
		}
	}
	return true
}

func dataFields(e metav1.ManagedFieldsEntry) map[string]any {
	if e.FieldsV1 == nil {
		return nil
	}
	var fields struct {
		Data map[string]any `json:"f:data"`
	}
	if json.Unmarshal(e.FieldsV1.GetRawBytes(), &fields) != nil {
		return nil
	}
	return fields.Data
}

// NameOf the Secret of a namespace.
func NameOf(namespace string) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: contract.CredentialsSecret}
}
