package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"labmesh/api"
)

// queryGrace is how long the answer to a query may take beyond its own timeout.
const queryGrace = 30 * time.Second

// Query asks the ledger. Numbers in the rows are [json.Number].
func (c *Client) Query(ctx context.Context, q api.QueryRequest) (api.QueryReply, error) {
	var reply api.QueryReply
	err := c.do(ctx, call{method: http.MethodPost, path: "/api/query", in: q, out: &reply, timeout: queryTimeout(q)})
	return reply, err
}

// QueryParquet asks the ledger and writes the rows to w as a Parquet file.
func (c *Client) QueryParquet(ctx context.Context, q api.QueryRequest, w io.Writer) error {
	body, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("encode the query: %w", err)
	}
	try, cancel := context.WithTimeout(ctx, queryTimeout(q))
	defer cancel()
	req, err := c.request(try, http.MethodPost, "/api/query", url.Values{"format": {"parquet"}}, body)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", api.ParquetType)
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreached(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return refusalOf(resp)
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("take the Parquet file from %s: %w", c.URL(), err)
	}
	return nil
}

func queryTimeout(q api.QueryRequest) time.Duration {
	own := time.Duration(q.TimeoutSeconds * float64(time.Second))
	if own <= 0 || own > api.QueryTimeoutMax {
		own = api.QueryTimeoutMax
	}
	return own + queryGrace
}
