package httpapi

import (
	"net/http"
	"strings"

	"labmesh"
	"labmesh/api"
)

const nodeNotFound = "Node not found"

// drain has a worker take no more tasks.
func (a *API) drain(w http.ResponseWriter, r *http.Request, c Caller) error {
	var req api.HoldRequest
	if err := a.readOptional(w, r, &req); err != nil {
		return err
	}
	if len(req.Reason) > api.LabelCharsMax {
		return labmesh.RefuseField("reason", "reason: it is longer than %d bytes", api.LabelCharsMax)
	}
	orElse(&req.Reason, "drained by "+c.Who())
	return a.hold(w, r, labmesh.WorkerDraining, req.Reason, c)
}

// undrain has a worker take tasks again.
func (a *API) undrain(w http.ResponseWriter, r *http.Request, c Caller) error {
	if err := a.readOptional(w, r, &struct{}{}); err != nil {
		return err
	}
	return a.hold(w, r, "", "", c)
}

// readOptional reads a body that may be left out.
func (a *API) readOptional(w http.ResponseWriter, r *http.Request, to any) error {
	body, err := readBody(w, r, a.limits.BodyBytes)
	if err != nil || len(strings.TrimSpace(string(body))) == 0 {
		return err
	}
	return decodeStrict(body, to)
}

func (a *API) hold(w http.ResponseWriter, r *http.Request, status labmesh.WorkerStatus, reason string, c Caller) error {
	id := labmesh.WorkerID(r.PathValue("id"))
	if err := a.svc.HoldWorker(r.Context(), id, status, reason, c.Who()); err != nil {
		return rename(err, workerNotFound)
	}
	message := "Worker takes tasks again"
	if status != "" {
		message = "Worker takes no more tasks; those that it runs go on"
	}
	return a.reply(w, r, api.HoldReply{ID: id, Message: message})
}

// ban shuts out a node for ever.
func (a *API) ban(w http.ResponseWriter, r *http.Request, c Caller) error {
	if err := a.readOptional(w, r, &struct{}{}); err != nil {
		return err
	}
	node, err := a.svc.Ban(r.Context(), r.PathValue("id"), c.Who())
	if err != nil {
		return rename(err, nodeNotFound)
	}
	return a.reply(w, r, api.BanReply{Node: node, Message: "Node banned"})
}
