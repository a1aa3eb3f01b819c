package node

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"

	"labmesh"
	"labmesh/node/httpapi"
	"labmesh/security"
)

// How closely the last use of keys is followed: each use costs nothing, and a
// key that is used all the time a few entries of the log in an hour.
const (
	useEvery = time.Minute     // at most one word of it from each node
	useAfter = 5 * time.Minute // since the use that the mesh knows of
	usesMax  = 1000            // keys in one word
)

// Authenticate finds out who bears an API key or a token.
func (s *service) Authenticate(credential string) (httpapi.Caller, error) {
	view, now := s.n.replica.View(), time.Now()
	if id, ok := security.KeyID(credential); ok {
		if k, ok := view.Key(id); ok && security.Opens(credential, k) {
			return s.callerOf(k, now)
		}
	} else if security.IsToken(credential) {
		c, err := s.bearer(credential, now)
		if labmesh.ReasonOf(err) != labmesh.Denied || err.Error() != "" {
			return c, err
		}
	}
	if !s.n.caughtUp.Load() {
		return httpapi.Caller{}, labmesh.Refuse(labmesh.Unavailable, "this node has only just started and does not know the mesh's keys yet")
	}
	return httpapi.Caller{}, labmesh.Refuse(labmesh.Denied, "")
}

// callerOf is the bearer of a key, who has proven to be that.
func (s *service) callerOf(k *labmesh.Key, now time.Time) (httpapi.Caller, error) {
	switch {
	case !k.Revoked.IsZero():
		return httpapi.Caller{}, labmesh.Refuse(labmesh.Denied, "the key %s was revoked", k.ID)
	case !k.Valid(now):
		return httpapi.Caller{}, labmesh.Refuse(labmesh.Denied, "the key %s expired at %s", k.ID, k.Expires.UTC().Format(time.RFC3339))
	}
	s.uses.note(k, now)
	return httpapi.Caller{ID: k.ID, Name: k.Name, Role: k.Role, Project: k.Project, RequireSigned: k.RequireSigned}, nil
}

// VerifySigned proves the signature of a request.
func (s *service) VerifySigned(c httpapi.Caller, header, method, uri string, body [sha256.Size]byte) error {
	return s.proven(c.ID, func(secret string, now time.Time) (security.Signature, error) {
		return security.VerifyRequest(c.ID, secret, header, method, uri, body, now)
	})
}

// proven has a signature verified by the secret of a key, and takes it once.
func (s *service) proven(key string, verify func(secret string, now time.Time) (security.Signature, error)) error {
	k, ok := s.n.replica.View().Key(key)
	if !ok || k.Signing == nil {
		return labmesh.Refuse(labmesh.Denied, "key %s has no secret for signatures", key)
	}
	secret, err := s.n.vault.Open(*k.Signing)
	if err != nil {
		return err
	}
	now := time.Now()
	signature, err := verify(string(secret), now)
	if err != nil {
		return err
	}
	return s.replays.Take(signature, now)
}

// keyUses are uses of keys that the mesh has not heard of yet.
type keyUses struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// note takes down that k was used, if that is news.
func (u *keyUses) note(k *labmesh.Key, now time.Time) {
	if now.Sub(k.LastUsed) < useAfter {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last == nil {
		u.last = map[string]time.Time{}
	}
	if _, ok := u.last[k.ID]; ok || len(u.last) < usesMax {
		u.last[k.ID] = now
	}
}

// take is all uses that were noted since it was called last.
func (u *keyUses) take() (out []labmesh.KeyUse) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, at := range u.last {
		out = append(out, labmesh.KeyUse{ID: id, At: at})
	}
	clear(u.last)
	return out
}

// tellUses tells the mesh from time to time which keys were used here.
func (s *service) tellUses(ctx context.Context) error {
	tick := time.NewTicker(useEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		cmd := labmesh.UseKeys{}
		if s.n.replica.View().Level() < labmesh.LevelOf(cmd) {
			continue
		}
		if cmd.Used = s.uses.take(); len(cmd.Used) == 0 {
			continue
		}
		if _, err := s.n.replica.Propose(ctx, cmd); err != nil && ctx.Err() == nil {
			s.n.cfg.Logger.DebugContext(ctx, "last use of keys not told; the next use is", "err", err)
		}
	}
}

// CreateKey makes an API key.
func (s *service) CreateKey(ctx context.Context, by httpapi.Caller, r httpapi.KeyRequest) (string, labmesh.Key, error) {
	key, kept, err := security.MintKey(rand.Reader, r.Role, r.Name)
	if err != nil {
		return "", labmesh.Key{}, err
	}
	kept.Project, kept.By, kept.RequireSigned = r.Project, by.ID, r.RequireSigned
	if r.TTL > 0 {
		kept.Expires = time.Now().Add(r.TTL).UTC().Truncate(time.Second)
	}
	if r.RequireSigned {
		sealed, err := s.n.vault.Seal([]byte(key))
		if err != nil {
			return "", labmesh.Key{}, err
		}
		kept.Signing = &sealed
	}
	if err := s.propose(ctx, labmesh.PutKey{Key: kept}); err != nil {
		return "", labmesh.Key{}, err
	}
	if k, ok := s.n.replica.View().Key(kept.ID); ok {
		kept = *k // with the time at which it was made
	}
	return key, kept, nil
}

// ListKeys are all keys that are remembered.
func (s *service) ListKeys(context.Context) (list []labmesh.Key, err error) {
	for k := range s.n.replica.View().Keys() {
		list = append(list, *k)
	}
	return list, nil
}

// RevokeKey makes a key open nothing any more.
func (s *service) RevokeKey(ctx context.Context, id, by string) error {
	return s.propose(ctx, labmesh.RevokeKey{ID: id, By: by})
}

// ListInvites are all invites that are remembered.
func (s *service) ListInvites(context.Context) (list []labmesh.Invite, err error) {
	for i := range s.n.replica.View().Invites() {
		list = append(list, *i)
	}
	return list, nil
}

// DropInvite makes an invite let nobody in any more.
func (s *service) DropInvite(ctx context.Context, id, by string) error {
	return s.propose(ctx, labmesh.DropInvite{ID: id, By: by})
}
