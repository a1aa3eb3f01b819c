package httpapi

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/bench/report"
)

// Auditor keeps a record of what was done to the mesh. It must not block.
type Auditor interface {
	Audit(r labmesh.AuditRecord)
}

// AuditFilter selects records; its zero value selects the newest.
type AuditFilter struct {
	Since  time.Time
	Actor  string // id or name of a key, or id of a node
	Action string // a part of it
	Limit  int
}

// auditLimit and auditMax bound how many records are listed.
const (
	auditLimit = 100
	auditMax   = 1000
)

// done is what there is to say of a request for the record. It is filled in
// while the request is answered.
type done struct {
	caller Caller
	target string
	count  int
}

type doneKey struct{}

// doneOf is the record to be of r; one that nobody reads where there will be none.
func doneOf(r *http.Request) *done {
	if d, ok := r.Context().Value(doneKey{}).(*done); ok {
		return d
	}
	return new(done)
}

// audited is r with a place for what is to be recorded of it.
func audited(r *http.Request) (*http.Request, *done) {
	d := new(done)
	return r.WithContext(context.WithValue(r.Context(), doneKey{}, d)), d
}

// audit records a request that changed something or wanted to, or that was refused
// for who sent it.
func (a *API) audit(r *http.Request, status int, rt *route, d *done) {
	refused := status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusTooManyRequests && d.caller.ID == ""
	if a.auditor == nil || !refused && (rt == nil || rt.reads()) {
		return
	}
	action := "other"
	if rt != nil {
		action = rt.method + " " + rt.path
	}
	remote, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		remote = r.RemoteAddr
	}
	a.auditor.Audit(labmesh.AuditRecord{
		At: time.Now().UTC(), Actor: d.caller.ID, Name: d.caller.Name, Role: d.caller.Role, Remote: remote,
		Action: action, Target: d.target, Outcome: outcomeOf(status), Count: d.count,
	})
}

// reads reports whether a route changes nothing, whatever its method.
func (rt *route) reads() bool {
	return rt.method == http.MethodGet || rt.path == "/api/query" || rt.path == "/api/bundles/missing"
}

// outcomeOf is a status in a word.
func outcomeOf(status int) string {
	switch {
	case status < 400:
		return "ok"
	case status == http.StatusUnauthorized:
		return "unauthenticated"
	}
	for _, reason := range []labmesh.Reason{labmesh.Invalid, labmesh.NotFound, labmesh.Conflict, labmesh.Denied, labmesh.TooLarge, labmesh.Exhausted, labmesh.Unavailable} {
		if statusOf(reason) == status {
			return string(reason)
		}
	}
	return string(labmesh.Internal)
}

// targetOf is what of the path names the thing that a request is about.
func targetOf(r *http.Request) string {
	for _, name := range []string{"id", "name"} {
		if v := r.PathValue(name); v != "" {
			return v[:min(len(v), auditTargetMax)]
		}
	}
	return ""
}

// auditTargetMax bounds the bytes of a target: it may be anything that somebody wrote into a path.
const auditTargetMax = 128

// auditLog lists what was done to the mesh, the newest first.
func (a *API) auditLog(w http.ResponseWriter, r *http.Request, _ Caller) error {
	q := r.URL.Query()
	f := AuditFilter{Actor: q.Get("actor"), Action: q.Get("action"), Limit: auditLimit}
	var err error
	if s := q.Get("since"); s != "" {
		if f.Since, err = report.ParseSince(s, time.Now().UTC()); err != nil {
			return labmesh.RefuseField("since", "since: %v", err)
		}
	}
	if s := q.Get("limit"); s != "" {
		if f.Limit, err = strconv.Atoi(s); err != nil || f.Limit < 1 || f.Limit > auditMax {
			return labmesh.RefuseField("limit", "limit: %.20q is not between 1 and %d", s, auditMax)
		}
	}
	records, err := a.svc.AuditLog(r.Context(), f)
	if err != nil {
		return err
	}
	if records == nil {
		records = []labmesh.AuditRecord{}
	}
	return a.reply(w, r, api.AuditLog{Records: records})
}
