package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"labmesh"
	"labmesh/api"
)

// AuditQuery selects records of what was done to the mesh.
type AuditQuery struct {
	Since  string // a time, or how long ago: 36h, 14d
	Actor  string
	Action string
	Limit  int // 0 for the node's default
}

// Audit lists what was done to the mesh, the newest first.
func (c *Client) Audit(ctx context.Context, q AuditQuery) ([]labmesh.AuditRecord, error) {
	query := url.Values{}
	for name, value := range map[string]string{"since": q.Since, "actor": q.Actor, "action": q.Action} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if q.Limit > 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
	}
	var log api.AuditLog
	err := c.do(ctx, call{method: http.MethodGet, path: "/api/audit", query: query, out: &log})
	return log.Records, err
}
