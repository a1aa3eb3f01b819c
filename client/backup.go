package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// Backup writes a backup of the whole mesh to w, as labmesh restore takes it. It is
// whole when there is no error; the caller bounds the time by ctx.
func (c *Client) Backup(ctx context.Context, w io.Writer) error {
	req, err := c.request(ctx, http.MethodGet, "/api/backup", nil, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreached(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return refusalOf(resp)
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("take the backup from %s: %w", c.URL(), err)
	}
	return nil
}
