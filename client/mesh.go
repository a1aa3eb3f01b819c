package client

import (
	"context"
	"net/http"
	"net/url"

	"labmesh"
	"labmesh/api"
)

// Status is the mesh as the node sees it. It works with no leader.
func (c *Client) Status(ctx context.Context) (api.Status, error) {
	var s api.Status
	err := c.do(ctx, call{method: http.MethodGet, path: "/status", out: &s})
	return s, err
}

// Peers are the members of the mesh as the node reaches them.
func (c *Client) Peers(ctx context.Context) (api.PeerList, error) {
	var list api.PeerList
	err := c.do(ctx, call{method: http.MethodGet, path: "/api/peers", out: &list})
	return list, err
}

// Workers lists the workers of the mesh.
func (c *Client) Workers(ctx context.Context) ([]api.WorkerSummary, error) {
	var list api.WorkerList
	err := c.do(ctx, call{method: http.MethodGet, path: "/api/workers", out: &list})
	return list.Workers, err
}

// Worker is a worker in full, with the tasks that it holds or held lately.
func (c *Client) Worker(ctx context.Context, id labmesh.WorkerID) (api.Worker, error) {
	var w api.Worker
	err := c.do(ctx, call{method: http.MethodGet, path: "/api/workers/" + url.PathEscape(string(id)), out: &w})
	return w, err
}

// Register makes a worker known before it comes.
func (c *Client) Register(ctx context.Context, r api.RegisterRequest) (api.RegisterReply, error) {
	var reply api.RegisterReply
	err := c.do(ctx, call{method: http.MethodPost, path: "/api/workers/register", in: r, out: &reply, once: r.ID == ""})
	return reply, err
}

// Drain has a worker take no more tasks.
func (c *Client) Drain(ctx context.Context, id labmesh.WorkerID, reason string) (api.HoldReply, error) {
	return c.hold(ctx, id, "/drain", api.HoldRequest{Reason: reason})
}

// Undrain has it take tasks again.
func (c *Client) Undrain(ctx context.Context, id labmesh.WorkerID) (api.HoldReply, error) {
	return c.hold(ctx, id, "/undrain", nil)
}

func (c *Client) hold(ctx context.Context, id labmesh.WorkerID, verb string, in any) (api.HoldReply, error) {
	var reply api.HoldReply
	err := c.do(ctx, call{method: http.MethodPost, path: "/api/workers/" + url.PathEscape(string(id)) + verb, in: in, out: &reply})
	return reply, err
}

// Ban shuts a node out for ever. Name is its id, or that of its worker.
func (c *Client) Ban(ctx context.Context, name string) (api.BanReply, error) {
	var reply api.BanReply
	err := c.do(ctx, call{method: http.MethodPost, path: "/api/nodes/" + url.PathEscape(name) + "/ban", out: &reply})
	return reply, err
}

// Invite mints an invite.
func (c *Client) Invite(ctx context.Context, r api.InviteRequest) (api.InviteReply, error) {
	var reply api.InviteReply
	err := c.do(ctx, call{method: http.MethodPost, path: "/api/invites", in: r, out: &reply, once: true})
	return reply, err
}

// Healthy is nil when the node answers.
func (c *Client) Healthy(ctx context.Context) error {
	return c.do(ctx, call{method: http.MethodGet, path: "/healthz"})
}

// Ready is nil when the node knows a leader and has caught up. It does not
// wait for that.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.try(ctx, call{method: http.MethodGet, path: "/readyz"})
	return err
}
