package validate

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/metip/metip/api/v1alpha1"
)

// Memo remembers what was found in each generation of an object, for compiling costs far more than looking.
type Memo struct {
	allowed Allowed

	mu    sync.Mutex
	found map[types.UID]finding
}

type finding struct {
	generation int64
	errs       field.ErrorList
}

// maxFindings before the memory is begun anew: deleted objects are not announced here.
const maxFindings = 20000

// NewMemo checks Connectors with what the operator's flags allow.
func NewMemo(allowed Allowed) *Memo {
	return &Memo{allowed: allowed, found: map[types.UID]finding{}}
}

// Route is validate.Route, remembered.
func (m *Memo) Route(r *v1alpha1.Route) field.ErrorList {
	return m.check(r.UID, r.Generation, func() field.ErrorList { return Route(r) })
}

// Connector is validate.Connector, remembered.
func (m *Memo) Connector(c *v1alpha1.Connector) field.ErrorList {
	return m.check(c.UID, c.Generation, func() field.ErrorList { return Connector(c, m.allowed) })
}

// ResolvedRoute is Route for one whose schemas have their texts; version stands for them and the generation.
func (m *Memo) ResolvedRoute(r *v1alpha1.Route, version int64) field.ErrorList {
	return m.check("resolved/"+r.UID, version, func() field.ErrorList { return Route(r) })
}

// ResolvedConnector is Connector for one whose schema has its text; version stands for it and the generation.
func (m *Memo) ResolvedConnector(c *v1alpha1.Connector, version int64) field.ErrorList {
	return m.check("resolved/"+c.UID, version, func() field.ErrorList { return Connector(c, m.allowed) })
}

func (m *Memo) check(uid types.UID, generation int64, check func() field.ErrorList) field.ErrorList {
	m.mu.Lock()
	f, ok := m.found[uid]
	m.mu.Unlock()
	if ok && f.generation == generation {
		return f.errs
	}
	errs := check()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.found) >= maxFindings {
		clear(m.found)
	}
	m.found[uid] = finding{generation, errs}
	return errs
}
