package node

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"labmesh"
	"labmesh/node/httpapi"
	"labmesh/security"
	"labmesh/state"
)

// How often a leader looks whether a key for tokens is due.
const (
	tokenKeysEvery = time.Minute
	tokenKeysSoon  = time.Second // while there is none
)

// openedMax bounds the token keys that are remembered opened; there are two or three.
const openedMax = 16

// openedKeys are the secrets of token keys that were opened here.
type openedKeys struct {
	mu   sync.Mutex
	byID map[string][]byte
}

// secret is the secret of a token key.
func (o *openedKeys) secret(k *labmesh.TokenKey, sealer security.Sealer) ([]byte, error) {
	o.mu.Lock()
	secret, ok := o.byID[k.ID]
	o.mu.Unlock()
	if ok {
		return secret, nil
	}
	secret, err := sealer.Open(k.Secret)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.byID == nil || len(o.byID) >= openedMax {
		o.byID = map[string][]byte{}
	}
	o.byID[k.ID] = secret
	return secret, nil
}

// bearer is who bears a token. It is good as long as the key that it was made with is.
func (s *service) bearer(token string, now time.Time) (httpapi.Caller, error) {
	view := s.n.replica.View()
	t, err := security.ReadToken(token, s.n.Mesh(), now, func(kid string) ([]byte, error) {
		k, ok := view.TokenKey(kid)
		if !ok || !now.Before(k.Until) {
			return nil, labmesh.Refuse(labmesh.Denied, "")
		}
		return s.opened.secret(k, s.n.vault)
	})
	if err != nil {
		return httpapi.Caller{}, err
	}
	k, ok := view.Key(t.Key)
	if !ok {
		return httpapi.Caller{}, labmesh.Refuse(labmesh.Denied, "the key %s that the token was made with is gone", t.Key)
	}
	c, err := s.callerOf(k, now)
	c.Role, c.Worker, c.Token = t.Role, t.Worker, true
	return c, err
}

// MintToken makes a token that stands for the key of the caller, or for a worker.
func (s *service) MintToken(_ context.Context, by httpapi.Caller, worker labmesh.WorkerID) (httpapi.Token, error) {
	view, now := s.n.replica.View(), time.Now()
	key, ok := view.Key(by.ID)
	if !ok {
		return httpapi.Token{}, labmesh.Refuse(labmesh.Denied, "there is no key %s", by.ID)
	}
	if need := labmesh.LevelOf(labmesh.PutTokenKey{}); view.Level() < need {
		return httpapi.Token{}, labmesh.Refuse(labmesh.Unavailable, "the mesh makes no tokens before all of its nodes know feature level %d: upgrade them; API keys do", need)
	}
	signer, ok := security.SigningKey(tokenKeys(view), now)
	if !ok {
		return httpapi.Token{}, labmesh.Refuse(labmesh.Unavailable, "the mesh has no key for tokens yet: try again in a moment")
	}
	secret, err := s.opened.secret(signer, s.n.vault)
	if err != nil {
		return httpapi.Token{}, err
	}
	t := security.Token{Subject: by.ID, Key: by.ID, Role: by.Role, Project: by.Project, Issued: now, Expires: now.Add(security.TokenTTL)}
	if worker != "" {
		t.Subject, t.Worker, t.Role = string(worker), worker, labmesh.RoleWorker
	}
	if !key.Expires.IsZero() && key.Expires.Before(t.Expires) {
		t.Expires = key.Expires
	}
	text, err := security.SignToken(t, s.n.Mesh(), signer.ID, secret)
	if err != nil {
		return httpapi.Token{}, err
	}
	return httpapi.Token{Text: text, Role: t.Role, Worker: worker, Expires: t.Expires.Truncate(time.Second)}, nil
}

func tokenKeys(view state.View) []*labmesh.TokenKey { return slices.Collect(view.TokenKeys()) }

// keepTokenKeys sees to it, on the leader, that there is always a key by which tokens are signed.
func (s *service) keepTokenKeys(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
		wait := tokenKeysEvery
		if err := s.tendTokenKeys(ctx); err != nil && ctx.Err() == nil {
			if wait = tokenKeysSoon; labmesh.ReasonOf(err) != labmesh.Unavailable {
				return err
			}
		}
		timer.Reset(wait)
	}
}

// tendTokenKeys makes a key for tokens if one is due. Unavailable says that it cannot be made yet.
func (s *service) tendTokenKeys(ctx context.Context) error {
	view, now := s.n.replica.View(), time.Now()
	if view.Level() < labmesh.LevelOf(labmesh.PutTokenKey{}) {
		return labmesh.Refuse(labmesh.Unavailable, "not every node knows tokens yet")
	}
	from, due := security.NextTokenKey(tokenKeys(view), now)
	if !due {
		return nil
	}
	id, secret, err := security.MintTokenKey(rand.Reader)
	if err != nil {
		return err
	}
	sealed, err := s.n.vault.Seal(secret)
	if err != nil {
		return err
	}
	rc, err := s.n.replica.ProposeHere(ctx, labmesh.PutTokenKey{Key: labmesh.TokenKey{ID: id, Secret: sealed, From: from, Until: from.Add(security.TokenKeyTTL)}})
	if err != nil {
		return err
	}
	if refused := rc.Answers[0].Refused; refused != nil {
		return refused
	}
	return nil
}
