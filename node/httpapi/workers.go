package httpapi

import (
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"labmesh"
	"labmesh/api"
)

func (a *API) status(w http.ResponseWriter, r *http.Request, _ Caller) error {
	return a.reply(w, r, statusReply(a.svc.Status(r.Context())))
}

func (a *API) register(w http.ResponseWriter, r *http.Request, c Caller) error {
	body, err := readBody(w, r, a.limits.BodyBytes)
	if err != nil {
		return err
	}
	var req api.RegisterRequest
	if err := decodeLoose(body, &req); err != nil {
		return err
	}
	if err := checkRegister(&req); err != nil {
		return err
	}
	if c.Worker != "" {
		orElse(&req.ID, c.Worker)
	}
	if c.Worker != "" && req.ID != c.Worker {
		return labmesh.Refuse(labmesh.Denied, "The token is that of worker %s: it registers no other", c.Worker)
	}
	id, err := a.svc.Register(r.Context(), labmesh.Worker{
		ID: req.ID, Hostname: req.Hostname, Capabilities: req.Capabilities, Tags: req.Tags,
	})
	if err != nil {
		return err
	}
	return a.reply(w, r, api.RegisterReply{ID: id, Registered: true, Message: "Worker registered"})
}

func checkRegister(req *api.RegisterRequest) error {
	switch {
	case req.ID != "" && !api.ValidID(string(req.ID)):
		return labmesh.RefuseField("worker_id", "worker_id: %.40q is not 1 to %d of A-Z a-z 0-9 . _ : -", req.ID, api.IDBytesMax)
	case len(req.Hostname) > api.NameCharsMax || strings.ContainsRune(req.Hostname, 0):
		return labmesh.RefuseField("hostname", "hostname: it is longer than %d bytes or holds a NUL character", api.NameCharsMax)
	case len(req.Tags) > api.LabelsMax:
		return labmesh.RefuseField("tags", "tags: there are %d; at most %d are allowed", len(req.Tags), api.LabelsMax)
	}
	orElse(&req.Hostname, req.Capabilities.Hostname)
	return nil
}

func (a *API) listWorkers(w http.ResponseWriter, r *http.Request, _ Caller) error {
	workers, err := a.svc.ListWorkers(r.Context())
	if err != nil {
		return err
	}
	reply := api.WorkerList{Workers: make([]api.WorkerSummary, len(workers))}
	for i := range workers {
		reply.Workers[i] = workerSummary(&workers[i])
	}
	return a.reply(w, r, reply)
}

func (a *API) worker(w http.ResponseWriter, r *http.Request, c Caller) error {
	worker, tasks, err := a.svc.Worker(r.Context(), labmesh.WorkerID(r.PathValue("id")))
	if err == nil && !c.seesWorker(&worker.Worker) {
		err = labmesh.Refuse(labmesh.NotFound, workerNotFound)
	}
	if err != nil {
		return rename(err, workerNotFound)
	}
	if c.Confined() {
		tasks = slices.DeleteFunc(slices.Clone(tasks), func(t labmesh.Task) bool { return !c.sees(&t) })
	}
	return a.reply(w, r, workerDetail(&worker, tasks))
}

func (a *API) invite(w http.ResponseWriter, r *http.Request, c Caller) error {
	body, err := readBody(w, r, a.limits.BodyBytes)
	if err != nil {
		return err
	}
	var req api.InviteRequest
	if len(strings.TrimSpace(string(body))) > 0 {
		if err := decodeStrict(body, &req); err != nil {
			return err
		}
	}
	if err := checkInvite(&req); err != nil {
		return err
	}
	invite, err := a.svc.Invite(r.Context(), InviteRequest{
		Role: req.Role, TTL: time.Duration(req.TTLSeconds * float64(time.Second)), Uses: req.Uses, By: c.Who(),
	})
	if err != nil {
		return err
	}
	return a.reply(w, r, api.InviteReply{Invite: invite, Role: req.Role, TTLSeconds: req.TTLSeconds, Uses: req.Uses})
}

// checkInvite fills in what req leaves out and refuses what makes no sense.
func checkInvite(req *api.InviteRequest) error {
	orElse(&req.Role, api.InviteRoleDefault)
	orElse(&req.TTLSeconds, api.InviteTTLDefault.Seconds())
	orElse(&req.Uses, api.InviteUsesDefault)
	switch {
	case req.Role != labmesh.RoleNode && req.Role != labmesh.RoleWorker:
		return labmesh.RefuseField("role", "role: %.40q is not one of node, worker", req.Role)
	case !(req.TTLSeconds >= 1 && req.TTLSeconds <= api.InviteTTLMax.Seconds()) || math.IsNaN(req.TTLSeconds):
		return labmesh.RefuseField("ttl_seconds", "ttl_seconds: %g is not in 1 to %g", req.TTLSeconds, api.InviteTTLMax.Seconds())
	case req.Uses < 1 || req.Uses > api.InviteUsesMax:
		return labmesh.RefuseField("uses", "uses: %d is not in 1 to %d", req.Uses, api.InviteUsesMax)
	}
	return nil
}

func (a *API) healthz(w http.ResponseWriter, r *http.Request, _ Caller) error {
	return a.reply(w, r, api.Health{OK: true})
}

func (a *API) readyz(w http.ResponseWriter, r *http.Request, _ Caller) error {
	if err := a.svc.Ready(); err != nil {
		w.Header().Set("Retry-After", wholeSeconds(retryUnavailable))
		writeJSON(w, http.StatusServiceUnavailable, api.Health{Reason: err.Error()})
		return nil
	}
	return a.reply(w, r, api.Health{OK: true})
}

func (a *API) openapi(w http.ResponseWriter, _ *http.Request, _ Caller) error {
	writeBody(w, http.StatusOK, a.spec)
	return nil
}
