package node

import (
	"context"
	"net/http"
	"time"

	"labmesh"
	"labmesh/consensus"
	"labmesh/light"
	"labmesh/node/gateway"
	"labmesh/node/httpapi"
	"labmesh/security"
)

// lightLevel is the feature level of meshes that have light workers.
const lightLevel = 4

// newGateway makes the door for light workers of a node that has the log.
func newGateway(n *Node) *gateway.Gateway {
	return gateway.New(gateway.Config{
		Node: n.host.ID(), Mesh: lightMesh{n.replica, n.host.ID(), n.service}, Guard: lightGuard{n.service}, NewID: newID, Logger: n.cfg.Logger,
	})
}

// besides answers what the API has no route for.
func (n *Node) besides(w http.ResponseWriter, r *http.Request) {
	if gateway.Serves(r) {
		n.gateway.ServeHTTP(w, r)
		return
	}
	http.NotFound(w, r)
}

// lightMesh is the mesh as this node's gateway sees it.
type lightMesh struct {
	*consensus.Replica
	self    labmesh.NodeID
	service *service
}

var _ gateway.Mesh = lightMesh{}

// Facts is what this node's view says of a worker.
func (m lightMesh) Facts(id labmesh.WorkerID) light.Facts {
	view := m.View()
	f := light.Facts{Cancelled: func(id labmesh.TaskID) bool {
		t, ok := view.Task(id)
		return ok && !t.Cancelled.IsZero()
	}}
	if w, ok := view.Worker(id); ok && w.Light {
		f.Known, f.Offline, f.Mine = true, w.Status == labmesh.WorkerOffline, w.Node == m.self
	}
	for t := range view.Held(id) {
		f.Held = t
		break
	}
	return f
}

// Worker is one of this node's view.
func (m lightMesh) Worker(id labmesh.WorkerID) (*labmesh.Worker, bool) { return m.View().Worker(id) }

// Attached lists the light workers that the view has at this node.
func (m lightMesh) Attached() (ids []labmesh.WorkerID) {
	for w := range m.View().Workers() {
		if w.Light && w.Node == m.self && w.Status != labmesh.WorkerOffline {
			ids = append(ids, w.ID)
		}
	}
	return ids
}

// Task is one of this node's view.
func (m lightMesh) Task(id labmesh.TaskID) (t *labmesh.Task, ok, known bool) {
	view := m.View()
	t, ok = view.Task(id)
	return t, ok, view.Known(id)
}

// Refresh has the view be as new as the mesh, if there is a leader to ask and it is not asked too often.
func (m lightMesh) Refresh(ctx context.Context) { m.service.freshen(ctx) }

// hearLight adds what is heard of light workers: here what they said themselves, of those that are
// attached elsewhere that their node is there.
func (s *service) hearLight(heard map[labmesh.WorkerID]word) {
	nodes := s.n.host.Heard()
	for w := range s.n.replica.View().Workers() {
		if !w.Light || w.Status == labmesh.WorkerOffline {
			continue
		}
		at, doing, here := s.n.gateway.Heard(w.ID)
		if here && w.Node == s.n.host.ID() {
			one := word{at: at, advert: labmesh.Advert{Worker: w.ID, Accepts: true}, mute: doing == nil}
			if doing != nil {
				one.advert.Metrics = *doing
			}
			heard[w.ID] = one
		} else if h, ok := nodes[w.Node]; ok {
			heard[w.ID] = word{at: h.At, advert: labmesh.Advert{Worker: w.ID, Accepts: true}, mute: true}
		}
	}
}

// lightGuard says which keys light workers may bear.
type lightGuard struct{ service *service }

var _ gateway.Guard = lightGuard{}

// lightRoles are the roles of keys by which a light worker may come in.
var lightRoles = map[labmesh.Role]bool{labmesh.RoleWorker: true, labmesh.RoleOperator: true, labmesh.RoleAdmin: true}

// Authenticate is who bears a key or a token that light workers may bear.
func (g lightGuard) Authenticate(credential string) (gateway.Caller, error) {
	if g.service.n.replica.View().Level() < lightLevel {
		return gateway.Caller{}, labmesh.Refuse(labmesh.Unavailable, "this mesh has no light workers until every node runs the new build")
	}
	c, err := g.service.Authenticate(credential)
	if err != nil {
		return gateway.Caller{}, err
	}
	if !lightRoles[c.Role] {
		return gateway.Caller{}, labmesh.Refuse(labmesh.Denied, "a key with the role %s is not for workers", c.Role)
	}
	return gateway.Caller{Key: c.ID, Worker: c.Worker, RequireSigned: c.RequireSigned}, nil
}

// mintWait bounds the wait for a key that signs tokens, in a mesh that has only just begun.
const mintWait = 3 * time.Second

// Mint makes a token by which a worker may come back at any node.
func (g lightGuard) Mint(ctx context.Context, c gateway.Caller, worker labmesh.WorkerID) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, mintWait)
	defer cancel()
	for {
		token, err := g.service.MintToken(ctx, httpapi.Caller{ID: c.Key, Role: labmesh.RoleWorker}, worker)
		if err == nil || labmesh.ReasonOf(err) != labmesh.Unavailable {
			return token.Text, err
		}
		select {
		case <-time.After(insistPause):
		case <-ctx.Done():
			return "", err
		}
	}
}

// Verify proves that a message was signed by the secret of the caller's key, not long ago, and not before.
func (g lightGuard) Verify(c gateway.Caller, message []byte) error {
	return g.service.proven(c.Key, func(secret string, now time.Time) (security.Signature, error) {
		return security.VerifyMessage(c.Key, secret, message, now)
	})
}
