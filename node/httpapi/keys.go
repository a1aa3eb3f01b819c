package httpapi

import (
	"net/http"
	"time"

	"labmesh"
	"labmesh/api"
)

const (
	keyNotFound    = "Key not found"
	inviteNotFound = "Invite not found"
)

func (a *API) createKey(w http.ResponseWriter, r *http.Request, c Caller) error {
	body, err := readBody(w, r, a.limits.BodyBytes)
	if err != nil {
		return err
	}
	var req api.KeyRequest
	if err := decodeStrict(body, &req); err != nil {
		return err
	}
	if err := api.ValidateKey(&req); err != nil {
		return err
	}
	key, kept, err := a.svc.CreateKey(r.Context(), c, KeyRequest{
		Name: req.Name, Role: req.Role, Project: req.Project, TTL: time.Duration(req.TTLSeconds * float64(time.Second)), RequireSigned: req.RequireSigned,
	})
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return a.reply(w, r, api.KeyReply{APIKey: key, Key: keyReply(&kept)})
}

func keyReply(k *labmesh.Key) api.Key {
	return api.Key{
		ID: k.ID, Name: api.Text(k.Name), Role: k.Role, Project: api.Text(k.Project), By: api.Text(k.By),
		Created: api.Time{Time: k.Created}, Expires: api.Time{Time: k.Expires}, Revoked: api.Time{Time: k.Revoked}, LastUsed: api.Time{Time: k.LastUsed},
		RequireSigned: k.RequireSigned,
	}
}

func (a *API) listKeys(w http.ResponseWriter, r *http.Request, _ Caller) error {
	list, err := a.svc.ListKeys(r.Context())
	if err != nil {
		return err
	}
	reply := api.KeyList{Keys: make([]api.Key, len(list))}
	for i := range list {
		reply.Keys[i] = keyReply(&list[i])
	}
	return a.reply(w, r, reply)
}

func (a *API) revokeKey(w http.ResponseWriter, r *http.Request, c Caller) error {
	id := r.PathValue("id")
	if err := a.svc.RevokeKey(r.Context(), id, c.Who()); err != nil {
		return rename(err, keyNotFound)
	}
	return a.reply(w, r, api.RevokeReply{ID: id, Message: "Key revoked"})
}

func (a *API) mintToken(w http.ResponseWriter, r *http.Request, c Caller) error {
	var req api.TokenRequest
	if err := a.readOptional(w, r, &req); err != nil {
		return err
	}
	switch {
	case req.Worker != "" && !api.ValidID(string(req.Worker)):
		return labmesh.RefuseField("worker_id", "worker_id: %.40q is not 1 to %d of A-Z a-z 0-9 . _ : -", req.Worker, api.IDBytesMax)
	case req.Worker != "" && c.Role != labmesh.RoleWorker && c.Role != labmesh.RoleAdmin:
		return labmesh.Refuse(labmesh.Denied, "The role %s may make no token for a worker; it takes one of: %s", c.Role, admins|workers)
	case req.Worker == "" && c.Role == labmesh.RoleWorker:
		return labmesh.RefuseField("worker_id", "Missing required field: worker_id")
	}
	t, err := a.svc.MintToken(r.Context(), c, req.Worker)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return a.reply(w, r, api.TokenReply{Token: t.Text, Role: t.Role, Worker: t.Worker, Expires: api.Time{Time: t.Expires}})
}

func (a *API) listInvites(w http.ResponseWriter, r *http.Request, _ Caller) error {
	list, err := a.svc.ListInvites(r.Context())
	if err != nil {
		return err
	}
	reply := api.InviteList{Invites: make([]api.Invite, len(list))}
	for i, inv := range list {
		reply.Invites[i] = api.Invite{ID: inv.ID, Role: inv.Role, Expires: api.Time{Time: inv.Expires}, Uses: inv.Uses, By: api.Text(inv.By)}
	}
	return a.reply(w, r, reply)
}

func (a *API) dropInvite(w http.ResponseWriter, r *http.Request, c Caller) error {
	id := r.PathValue("id")
	if err := a.svc.DropInvite(r.Context(), id, c.Who()); err != nil {
		return rename(err, inviteNotFound)
	}
	return a.reply(w, r, api.RevokeReply{ID: id, Message: "Invite revoked: nobody comes in by it any more"})
}
