package client

import (
	"context"
	"net/http"
	"net/url"

	"labmesh/api"
)

// SetSecret keeps a value for the tasks that ask for it by name.
func (c *Client) SetSecret(ctx context.Context, name, value string) error {
	return c.do(ctx, call{method: http.MethodPut, path: secretPath(name), in: api.SecretRequest{Value: value}})
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

func secretPath(name string) string { return "/api/secrets/" + url.PathEscape(name) }
