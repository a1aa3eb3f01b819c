package httpapi

import (
	"net/http"

	"labmesh"
	"labmesh/api"
)

const secretNotFound = "Secret not found"

// putSecret keeps a value for the tasks that ask for it by name.
func (a *API) putSecret(w http.ResponseWriter, r *http.Request, c Caller) error {
	body, err := readBody(w, r, a.limits.BodyBytes)
	if err != nil {
		return err
	}
	var req api.SecretRequest
	if err := decodeStrict(body, &req); err != nil {
		return err
	}
	name := r.PathValue("name")
	if err := api.ValidateSecret(name, req.Value); err != nil {
		return err
	}
	if err := api.ValidateProjects(req.Projects); err != nil {
		return err
	}
	if err := a.svc.PutSecret(r.Context(), labmesh.Secret{Name: name, Value: req.Value, By: c.Who(), Projects: req.Projects}); err != nil {
		return err
	}
	return a.reply(w, r, api.SecretReply{Name: name, Message: "Secret set"})
}

// listSecrets shows which secrets there are, and never a value.
func (a *API) listSecrets(w http.ResponseWriter, r *http.Request, _ Caller) error {
	list, err := a.svc.Secrets(r.Context())
	if err != nil {
		return err
	}
	reply := api.SecretList{Secrets: make([]api.Secret, len(list))}
	for i, s := range list {
		reply.Secrets[i] = api.Secret{Name: s.Name, By: api.Text(s.By), Put: api.Time{Time: s.Put}, Projects: s.Projects}
	}
	return a.reply(w, r, reply)
}

func (a *API) dropSecret(w http.ResponseWriter, r *http.Request, c Caller) error {
	name := r.PathValue("name")
	if api.ValidateSecretName(name) != nil {
		return labmesh.Refuse(labmesh.NotFound, secretNotFound)
	}
	if err := a.svc.DropSecret(r.Context(), name, c.Who()); err != nil {
		return rename(err, secretNotFound)
	}
	return a.reply(w, r, api.SecretReply{Name: name, Message: "Secret removed"})
}

// rotateSeal has all that is secret sealed by a new key.
func (a *API) rotateSeal(w http.ResponseWriter, r *http.Request, c Caller) error {
	if err := a.readOptional(w, r, &struct{}{}); err != nil {
		return err
	}
	id, err := a.svc.RotateSeal(r.Context(), c.Name)
	if err != nil {
		return err
	}
	return a.reply(w, r, api.SealReply{Key: id, Message: "Secrets are sealed anew"})
}
