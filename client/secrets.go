package client

import (
	"context"
	"net/http"
	"net/url"

	"labmesh/api"
)

// SetSecret keeps a value for the tasks that ask for it by name. Of keys that are
// held to a project, those of projects may ask for it.
func (c *Client) SetSecret(ctx context.Context, name, value string, projects ...string) error {
	return c.do(ctx, call{method: http.MethodPut, path: secretPath(name), in: api.SecretRequest{Value: value, Projects: projects}})
}

// Secrets lists the names of the secrets, and who put them when.
func (c *Client) Secrets(ctx context.Context) ([]api.Secret, error) {
	var list api.SecretList
	err := c.do(ctx, call{method: http.MethodGet, path: "/api/secrets", out: &list})
	return list.Secrets, err
}

// RemoveSecret forgets a secret.
func (c *Client) RemoveSecret(ctx context.Context, name string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: secretPath(name), once: true})
}

// RotateSeal has all that is secret sealed by a new key of the mesh, whose id it returns.
func (c *Client) RotateSeal(ctx context.Context) (string, error) {
	var reply api.SealReply
	err := c.do(ctx, call{method: http.MethodPost, path: "/api/seal/rotate", out: &reply, once: true})
	return reply.Key, err
}

func secretPath(name string) string { return "/api/secrets/" + url.PathEscape(name) }
