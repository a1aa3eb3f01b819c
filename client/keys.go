package client

import (
	"context"
	"net/http"
	"net/url"

	"labmesh"
	"labmesh/api"
)

// CreateKey makes an API key. The reply is the only one that holds it.
func (c *Client) CreateKey(ctx context.Context, r api.KeyRequest) (api.KeyReply, error) {
	var reply api.KeyReply
	err := c.do(ctx, call{method: http.MethodPost, path: "/api/keys", in: r, out: &reply, once: true})
	return reply, err
}

// Keys lists the API keys, without what opens.
func (c *Client) Keys(ctx context.Context) ([]api.Key, error) {
	var list api.KeyList
	err := c.do(ctx, call{method: http.MethodGet, path: "/api/keys", out: &list})
	return list.Keys, err
}

// RevokeKey makes an API key open nothing any more.
func (c *Client) RevokeKey(ctx context.Context, id string) (api.RevokeReply, error) {
	var reply api.RevokeReply
	err := c.do(ctx, call{method: http.MethodDelete, path: "/api/keys/" + url.PathEscape(id), out: &reply})
	return reply, err
}

// Token makes a token that stands for the client's key, or for a worker.
func (c *Client) Token(ctx context.Context, worker labmesh.WorkerID) (api.TokenReply, error) {
	var reply api.TokenReply
	err := c.do(ctx, call{method: http.MethodPost, path: "/api/tokens", in: api.TokenRequest{Worker: worker}, out: &reply})
	return reply, err
}

// Invites lists the invites, without their secrets.
func (c *Client) Invites(ctx context.Context) ([]api.Invite, error) {
	var list api.InviteList
	err := c.do(ctx, call{method: http.MethodGet, path: "/api/invites", out: &list})
	return list.Invites, err
}

// RevokeInvite has an invite let nobody in any more.
func (c *Client) RevokeInvite(ctx context.Context, id string) (api.RevokeReply, error) {
	var reply api.RevokeReply
	err := c.do(ctx, call{method: http.MethodDelete, path: "/api/invites/" + url.PathEscape(id), out: &reply})
	return reply, err
}
