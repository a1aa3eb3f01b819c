package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"labmesh"
	"labmesh/consensus"
	"labmesh/mesh"
	"labmesh/security"
	"labmesh/state"
)

// sealLevel is the feature level from which on secrets are sealed before they enter the log.
const sealLevel = 4

// Limits of the vault.
const (
	sealEvery    = time.Second     // how often it is looked for what is to be sealed anew, or whose key is missing
	sealWait     = 5 * time.Second // for a key that is on its way
	sealAskWait  = 2 * time.Second // for one member to answer
	sealKeep     = time.Hour       // that a key is kept which nothing is sealed by any more
	sealWantMax  = 16              // keys in one request
	sealBatchMax = 100             // things sealed anew in one proposal
)

// vault keeps the seal keys of a node that holds the log, and seals and opens by
// them. The keys are in a file of the data dir and nowhere else: they go from
// replica to replica over a protocol of their own, never through the log.
type vault struct {
	dir     *dataDir
	self    labmesh.NodeID
	streams *mesh.Streams
	peers   func() []labmesh.NodeID // the other replicas
	replica *consensus.Replica
	logger  *slog.Logger
	lacking chan struct{} // has one in it when a key was looked for in vain

	ring    atomic.Pointer[security.Ring]
	mu      sync.Mutex               // held while the ring and its file change
	changed atomic.Pointer[chanOnce] // closed when the ring changes
	needed  map[string]time.Time     // when each key was last seen to be needed; of run alone
}

// chanOnce is a channel to be closed once.
type chanOnce struct{ c chan struct{} }

var _ security.Sealer = (*vault)(nil)

func openVault(n *Node) (*vault, error) {
	v := &vault{
		dir: n.dir, self: n.host.ID(), streams: n.host.Streams(sealProtocol), replica: n.replica, logger: n.cfg.Logger,
		lacking: make(chan struct{}, 1), needed: map[string]time.Time{},
		peers: func() []labmesh.NodeID {
			return slices.DeleteFunc(n.replicas(), func(id labmesh.NodeID) bool { return id == n.host.ID() })
		},
	}
	v.changed.Store(&chanOnce{make(chan struct{})})
	ring, err := n.dir.loadRing()
	if err != nil {
		return nil, err
	}
	v.ring.Store(&ring)
	return v, nil
}

// loadRing reads the seal keys in the data dir; none are there at first.
func (d *dataDir) loadRing() (security.Ring, error) {
	data, err := os.ReadFile(d.file(sealFile))
	if errors.Is(err, fs.ErrNotExist) {
		return security.Ring{}, nil
	}
	if err != nil {
		return security.Ring{}, fmt.Errorf("read seal keys: %w", err)
	}
	ring, err := security.ParseRing(data)
	if err != nil {
		return security.Ring{}, fmt.Errorf("%s: %w", d.file(sealFile), err)
	}
	return ring, nil
}

func (d *dataDir) saveRing(r security.Ring) error {
	data, err := r.Encode()
	if err != nil {
		return err
	}
	return d.write(sealFile, data)
}

// change puts another ring in place of this one, on disk first.
func (v *vault) change(to func(security.Ring) security.Ring) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	ring := to(*v.ring.Load())
	if slices.Equal(ring.IDs(), v.ring.Load().IDs()) {
		return nil
	}
	if err := v.dir.saveRing(ring); err != nil {
		return err
	}
	v.ring.Store(&ring)
	close(v.changed.Swap(&chanOnce{make(chan struct{})}).c)
	return nil
}

func (v *vault) keep(k security.SealKey) error {
	return v.change(func(r security.Ring) security.Ring { return r.With(k) })
}

// Seal encrypts by the newest key of the mesh.
func (v *vault) Seal(plain []byte) (labmesh.Sealed, error) {
	id := v.replica.View().SealKey()
	if id == "" {
		return labmesh.Sealed{}, labmesh.Refuse(labmesh.Unavailable, "the mesh has no seal key yet: try again in a moment")
	}
	k, ok := v.ring.Load().Key(id)
	if !ok {
		v.lack()
		return labmesh.Sealed{}, labmesh.Refuse(labmesh.Unavailable, "this node does not have seal key %s yet: try again in a moment", id)
	}
	return k.Seal(plain)
}

// Open decrypts what any member sealed. Unavailable says that the key is not here yet.
func (v *vault) Open(s labmesh.Sealed) ([]byte, error) {
	plain, err := v.ring.Load().Open(s)
	if labmesh.ReasonOf(err) == labmesh.Unavailable {
		v.lack()
	}
	return plain, err
}

// lack has the missing keys fetched soon.
func (v *vault) lack() {
	select {
	case v.lacking <- struct{}{}:
	default:
	}
}

// insistOn repeats what is Unavailable while the keys change, for a bounded time.
func insistOn[T any](ctx context.Context, v *vault, do func() (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, sealWait)
	defer cancel()
	for {
		ring, view := v.changed.Load().c, v.replica.Changed()
		out, err := do()
		if err == nil || labmesh.ReasonOf(err) != labmesh.Unavailable {
			return out, err
		}
		select {
		case <-ring:
		case <-view:
		case <-ctx.Done():
			return out, err
		}
	}
}

// Value is the value of a secret in the view, for an attempt that asks for it.
func (v *vault) Value(s *labmesh.Secret) (string, bool) {
	if s.Sealed == nil {
		return s.Value, true
	}
	plain, err := insistOn(context.Background(), v, func() ([]byte, error) { return v.Open(*s.Sealed) })
	if err != nil {
		v.logger.Error("a secret cannot be opened: set it anew if no other node has its key", "secret", s.Name, "err", err)
		return "", false
	}
	return string(plain), true
}

// conceal is a secret as it may enter the log.
func (v *vault) conceal(ctx context.Context, s labmesh.Secret) (labmesh.Secret, error) {
	if v.replica.View().Level() < sealLevel {
		return s, nil
	}
	sealed, err := insistOn(ctx, v, func() (labmesh.Sealed, error) { return v.Seal([]byte(s.Value)) })
	s.Value, s.Sealed = "", &sealed
	return s, err
}

// run fetches keys that are missing and forgets those that nothing needs, until ctx ends.
func (v *vault) run(ctx context.Context) error {
	tick := time.NewTicker(sealEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-v.lacking:
		case <-ctx.Done():
			return nil
		}
		if missing := v.look(time.Now()); len(missing) > 0 {
			v.fetch(ctx, missing)
		}
	}
}

// look notes which keys are needed now, and returns those that are not here.
func (v *vault) look(now time.Time) []string {
	view := v.replica.View()
	if view.SealKey() == "" {
		return nil
	}
	missing, past := turnover(neededKeys(view), *v.ring.Load(), v.needed, now)
	for _, id := range past {
		if err := v.change(func(r security.Ring) security.Ring { return r.Without(id) }); err != nil {
			v.logger.Warn("a seal key that nothing needs is still on disk", "key", id, "err", err)
		}
	}
	return missing[:min(len(missing), sealWantMax)]
}

// turnover says which of the needed keys a ring lacks, and which of its keys nothing has
// needed for long. It notes in seen when each was last needed.
func turnover(needed map[string]bool, ring security.Ring, seen map[string]time.Time, now time.Time) (missing, past []string) {
	for id := range needed {
		seen[id] = now
		if _, ok := ring.Key(id); !ok {
			missing = append(missing, id)
		}
	}
	for _, id := range ring.IDs() {
		if _, ok := seen[id]; !ok {
			seen[id] = now // it may be about to be needed
		}
	}
	for id, at := range seen {
		if now.Sub(at) > sealKeep {
			delete(seen, id)
			past = append(past, id)
		}
	}
	slices.Sort(missing)
	return missing, past
}

// neededKeys names the keys by which anything in the view is sealed, and will be.
func neededKeys(view state.View) map[string]bool {
	ids := map[string]bool{view.SealKey(): true}
	for s := range view.Secrets() {
		if s.Sealed != nil {
			ids[s.Sealed.Key] = true
		}
	}
	for k := range view.TokenKeys() {
		ids[k.Secret.Key] = true
	}
	for k := range view.Keys() {
		if k.Signing != nil {
			ids[k.Signing.Key] = true
		}
	}
	return ids
}

// missing names the keys that this node needs and does not have.
func (v *vault) missing() (ids []string) {
	view := v.replica.View()
	if view.SealKey() == "" {
		return nil
	}
	for id := range neededKeys(view) {
		if _, ok := v.ring.Load().Key(id); !ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// sealRequest is what replicas want of each other.
type sealRequest struct {
	Want   []string          `json:"want,omitempty"` // keys, by their ids
	Keep   *security.SealKey `json:"keep,omitempty"` // to be kept; only the leader's word counts
	Rotate bool              `json:"rotate,omitempty"`
	By     string            `json:"by,omitempty"` // who wants that
}

type sealReply struct {
	Keys    []security.SealKey `json:"keys,omitempty"`
	ID      string             `json:"id,omitempty"` // of the key that is the newest now
	Refused *labmesh.Error     `json:"refused,omitempty"`
}

// serve answers the other replicas.
func (v *vault) serve(ctx context.Context) error {
	return serveStreams(ctx, v.streams, func(ctx context.Context, conn net.Conn, req sealRequest) error {
		reply := v.answer(ctx, labmesh.NodeID(conn.RemoteAddr().String()), req)
		return answerHead(conn, reply)
	})
}

func (v *vault) answer(ctx context.Context, from labmesh.NodeID, req sealRequest) (r sealReply) {
	var err error
	switch {
	case req.Rotate:
		r.ID, err = v.rotate(ctx, req.By)
	case req.Keep != nil:
		if leader, _ := v.replica.Leader(); leader != from {
			err = labmesh.Refuse(labmesh.Denied, "only the leader makes seal keys")
			break
		}
		err = v.keep(*req.Keep)
	case len(req.Want) > sealWantMax:
		err = labmesh.Refuse(labmesh.TooLarge, "more than %d keys at once", sealWantMax)
	default:
		for _, id := range req.Want {
			if k, ok := v.ring.Load().Key(id); ok {
				r.Keys = append(r.Keys, k)
			}
		}
	}
	if err != nil {
		r.Refused = refusal(err)
	}
	return r
}

// ask asks one replica.
func (v *vault) ask(ctx context.Context, node labmesh.NodeID, req sealRequest, patience time.Duration) (sealReply, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	body, reply, err := ask[sealReply](ctx, v.streams, node, req)
	if err != nil {
		return reply, err
	}
	_ = body.Close() // all has been said
	if reply.Refused != nil {
		return reply, reply.Refused
	}
	return reply, nil
}

// fetch asks the other replicas for keys until one has them.
func (v *vault) fetch(ctx context.Context, ids []string) {
	for _, node := range v.peers() {
		reply, err := v.ask(ctx, node, sealRequest{Want: ids}, sealAskWait)
		if err != nil {
			v.logger.DebugContext(ctx, "seal keys not fetched", "from", node, "err", err)
			continue
		}
		for _, k := range reply.Keys { // named by their hashes: none can be passed off as another
			if !slices.Contains(ids, k.ID()) {
				continue
			}
			if err := v.keep(k); err != nil {
				v.logger.WarnContext(ctx, "a seal key was not kept", "key", k.ID(), "err", err)
				return
			}
			ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == k.ID() })
		}
		if len(ids) == 0 {
			return
		}
	}
}

// lead is what the leader does: it sees to it that there is a seal key, and that
// all that is secret is sealed by the newest.
func (v *vault) lead(ctx context.Context) error {
	tick := time.NewTicker(sealEvery)
	defer tick.Stop()
	for {
		changed := v.replica.Changed()
		view := v.replica.View()
		ready := view.Mesh() != "" && view.Level() >= sealLevel
		var err error
		switch {
		case ready && view.SealKey() == "":
			_, err = v.found(ctx)
		case ready:
			err = v.sealAnew(ctx, view)
		}
		if err != nil && ctx.Err() == nil {
			v.logger.WarnContext(ctx, "secrets are not sealed by the newest key yet", "err", err)
		}
		if ready {
			changed = nil // the clock does
		}
		select {
		case <-tick.C:
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// found makes the first seal key of the mesh, or takes the one that a leader
// before made and had no time to name.
func (v *vault) found(ctx context.Context) (string, error) {
	ring := v.ring.Load()
	if ids := ring.IDs(); len(ids) > 0 {
		k, _ := ring.Key(ids[0])
		return ids[0], v.establish(ctx, k, "")
	}
	return v.rotate(ctx, "")
}

// rotate makes a new seal key on the leader. All is sealed by it soon after.
func (v *vault) rotate(ctx context.Context, by string) (string, error) {
	if leader, _ := v.replica.Leader(); leader != v.self {
		return "", labmesh.Refuse(labmesh.Unavailable, "this node does not lead: try again")
	}
	if level := v.replica.View().Level(); level < sealLevel {
		return "", labmesh.Refuse(labmesh.Conflict, "the mesh is at feature level %d and seals secrets from level %d on: upgrade its other nodes first", level, sealLevel)
	}
	k, err := security.MintSealKey(rand.Reader)
	if err != nil {
		return "", err
	}
	return k.ID(), v.establish(ctx, k, by)
}

// establish gives a key to the other replicas and, once a majority of the voters
// has it on disk, names it in the log: what it seals is lost no sooner than the log is.
func (v *vault) establish(ctx context.Context, k security.SealKey, by string) error {
	if err := v.keep(k); err != nil {
		return err
	}
	voters := v.replica.Status().Voters
	var have atomic.Int32
	var telling sync.WaitGroup
	for _, node := range v.peers() {
		telling.Go(func() {
			if _, err := v.ask(ctx, node, sealRequest{Keep: &k}, sealAskWait); err != nil {
				v.logger.DebugContext(ctx, "a replica did not take the seal key; it fetches it later", "node", node, "err", err)
			} else if slices.Contains(voters, node) {
				have.Add(1)
			}
		})
	}
	telling.Wait()
	if got := int(have.Load()) + 1; 2*got <= len(voters) {
		return labmesh.Refuse(labmesh.Unavailable, "only %d of %d voters took the new seal key: try again when more can be reached", got, len(voters))
	}
	rc, err := v.replica.ProposeHere(ctx, labmesh.PutSealKey{ID: k.ID(), By: by})
	if err != nil {
		return err
	}
	return v.replica.Await(ctx, rc.Index)
}

// sealAnew proposes what is not sealed by the newest key, sealed by it.
func (v *vault) sealAnew(ctx context.Context, view state.View) error {
	var cmds []labmesh.Command
	var errs []error
	again := func(s labmesh.Sealed, put func(labmesh.Sealed)) {
		if s.Key == view.SealKey() || len(cmds) >= sealBatchMax {
			return
		}
		plain, err := v.Open(s)
		if err == nil {
			s, err = v.Seal(plain)
		}
		if err != nil {
			errs = append(errs, err)
			return
		}
		put(s)
	}
	for s := range view.Secrets() {
		put := func(sealed labmesh.Sealed) {
			cmds = append(cmds, labmesh.PutSecret{Secret: labmesh.Secret{Name: s.Name, By: s.By, Put: s.Put, Projects: s.Projects, Sealed: &sealed}})
		}
		if s.Sealed != nil {
			again(*s.Sealed, put)
		} else if sealed, err := v.Seal([]byte(s.Value)); err != nil {
			errs = append(errs, err)
		} else if len(cmds) < sealBatchMax {
			put(sealed)
		}
	}
	for k := range view.TokenKeys() {
		again(k.Secret, func(s labmesh.Sealed) {
			fresh := *k
			fresh.Secret = s
			cmds = append(cmds, labmesh.PutTokenKey{Key: fresh})
		})
	}
	for k := range view.Keys() {
		if k.Signing != nil {
			again(*k.Signing, func(s labmesh.Sealed) {
				fresh := *k
				fresh.Signing = &s
				cmds = append(cmds, labmesh.PutKey{Key: fresh})
			})
		}
	}
	if len(cmds) > 0 {
		if _, err := v.replica.ProposeHere(ctx, cmds...); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// rotateWait bounds a rotation that another node was asked for.
const rotateWait = 15 * time.Second

// RotateSeal has all secrets of the mesh sealed by a new key, whose id it returns.
func (s *service) RotateSeal(ctx context.Context, by string) (string, error) {
	v := s.n.vault
	leader, _ := s.n.replica.Leader()
	switch leader {
	case "":
		return "", labmesh.Refuse(labmesh.Unavailable, "rotate the seal key: the mesh has no leader just now")
	case s.n.host.ID():
		return v.rotate(ctx, by)
	}
	reply, err := v.ask(ctx, leader, sealRequest{Rotate: true, By: by}, rotateWait)
	return reply.ID, err
}
