package connector

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/controllers/internal/bus"
	"github.com/metip/metip/controllers/internal/credentials"
	"github.com/metip/metip/controllers/internal/outcome"
	"github.com/metip/metip/controllers/internal/refs"
)

// reconcileCredentials issues the pods' broker user when there is none, when its permissions changed, or when a third of its life is left.
// The former one goes on being accepted until the pods that use it are gone (reconcileRollout).
func (r *Reconciler) reconcileCredentials(ctx context.Context, s *scope) error {
	key := s.key()
	permissions := s.permissions()
	wanted := credentials.Record{
		Permissions: permissionsDigest(permissions), ConnectorUID: s.connector.UID,
		Broker: client.ObjectKeyFromObject(s.area.Broker).String(), BrokerUID: s.area.Broker.UID,
	}
	former := s.record
	if former != nil && sameGrant(*former, wanted) && former.Expires.Sub(s.now) > credentials.RenewBefore {
		return nil
	}
	if former == nil { // the key was removed or changed behind our back: the user that was there is not to be trusted
		former, _ = r.Credentials.Known(key)
	}
	if former != nil && (s.record == nil || !sameGrant(*former, wanted)) {
		if err := r.retire(ctx, s, *former); err != nil {
			return err
		}
	}
	user, err := s.area.Session.IssueUser(contract.UserName(key.Namespace, key.Name), permissions, credentials.Lifetime)
	if err != nil {
		return refs.BusOutcome(fmt.Errorf("issuing the broker user: %w", err))
	}
	wanted.PublicKey, wanted.Expires = user.PublicKey, user.Expires.UTC().Truncate(time.Second)
	if err := r.Credentials.Put(ctx, key, wanted, user.Creds); err != nil {
		return outcome.Retry(v1alpha1.ReasonProgrammingFailed, "%w", err).On(v1alpha1.ConditionProgrammed)
	}
	s.record = &wanted
	return nil
}

// sameGrant tells whether a user was issued for what is wanted.
func sameGrant(a, b credentials.Record) bool {
	return a.Permissions == b.Permissions && a.ConnectorUID == b.ConnectorUID && a.Broker == b.Broker && a.BrokerUID == b.BrokerUID
}

// retire notes, before another is issued, that a user is to be revoked: the note survives a restart.
func (r *Reconciler) retire(ctx context.Context, s *scope, former credentials.Record) error {
	retired := &credentials.Retired{Broker: former.Broker, BrokerUID: former.BrokerUID, Keys: []string{former.PublicKey}}
	if s.retired != nil && s.retired.BrokerUID == former.BrokerUID {
		if slices.Contains(s.retired.Keys, former.PublicKey) {
			return nil
		}
		retired.Keys = append(slices.Clone(s.retired.Keys), former.PublicKey)
	}
	if err := r.Credentials.Retire(ctx, s.key(), retired); err != nil {
		return err
	}
	s.retired = retired
	return nil
}

// revokeRetired revokes the users that no pod uses any more.
func (r *Reconciler) revokeRetired(ctx context.Context, key types.NamespacedName, retired *credentials.Retired) error {
	if err := r.revoke(ctx, retired.Broker, retired.BrokerUID, retired.Keys...); err != nil {
		return err
	}
	return r.Credentials.Retire(ctx, key, nil)
}

// revoke users, unless their Broker is gone and they are worth nothing.
func (r *Reconciler) revoke(ctx context.Context, broker string, brokerUID types.UID, keys ...string) error {
	name, gone, err := r.brokerGone(ctx, broker, brokerUID)
	if err != nil || gone {
		return err
	}
	session, err := r.Sessions.Session(name)
	if err != nil {
		return refs.Unreachable(err)
	}
	for _, k := range keys {
		if err := session.Revoke(ctx, k); err != nil {
			if errors.Is(err, bus.ErrUnreachable) {
				return refs.Unreachable(err)
			}
			return fmt.Errorf("revoking a former broker user: %w", err)
		}
	}
	return nil
}

// gone revokes the users of a Connector that was deleted, and removes its key. The Connector has no finalizer: its name is found in the
// annotations of the Secret, also after a restart.
func (r *Reconciler) gone(ctx context.Context, key types.NamespacedName) error {
	r.settler.forget(key)
	r.refreshed.forget(key)
	record, retired, err := r.Credentials.Find(ctx, key)
	if err != nil {
		return err
	}
	if record == nil && retired == nil {
		record, retired = r.Credentials.Known(key)
	}
	if record == nil && retired == nil {
		return nil
	}
	if there, err := r.exists(ctx, key); err != nil || there {
		return err
	}
	return r.discard(ctx, key, record, retired)
}

// discard the users of a Connector or relay that is no more.
func (r *Reconciler) discard(ctx context.Context, key types.NamespacedName, record *credentials.Record, retired *credentials.Retired) error {
	if record != nil {
		if err := r.revoke(ctx, record.Broker, record.BrokerUID, record.PublicKey); err != nil {
			return err
		}
	}
	if retired != nil {
		if err := r.revoke(ctx, retired.Broker, retired.BrokerUID, retired.Keys...); err != nil {
			return err
		}
	}
	return r.Credentials.Remove(ctx, key)
}

func permissionsDigest(p contract.Permissions) string {
	lists := [][]string{slices.Clone(p.Publish), slices.Clone(p.Subscribe)}
	h := sha256.New()
	for _, l := range lists {
		slices.Sort(l)
		_, _ = h.Write([]byte(strings.Join(l, "\n") + "\n\n"))
	}
	if r := p.Responses; r != nil {
		_, _ = fmt.Fprintf(h, "%d %s\n", r.Max, r.TTL)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
