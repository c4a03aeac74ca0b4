package integration

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/refs"
)

// scope is what the phases of a pass share.
type scope struct {
	integration *v1alpha1.Integration
	now         time.Time

	area refs.Area
	// connectors and routes that name the Integration, by name; those being deleted are left out.
	connectors []v1alpha1.Connector
	routes     []v1alpha1.Route
	// storage of the streams; nil while it is not known.
	storage *bus.StreamsState
}

func (s *scope) key() types.NamespacedName { return client.ObjectKeyFromObject(s.integration) }
