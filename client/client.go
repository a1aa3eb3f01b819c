package client

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"labmesh"
)

// Limits and defaults of a client.
const (
	patienceDefault  = 10 * time.Second // failovers take under one
	requestTimeout   = 60 * time.Second // of one answer that is no stream
	responseBytesMax = 256 << 20
	errorBytesMax    = 64 << 10
	connsPerHost     = 64 // kept open between requests
	pollersMax       = 8  // tasks asked for at the same time
)

// Config says which node to talk to, and how.
type Config struct {
	URL string // of the node's API, e.g. http://127.0.0.1:8080
	Key string // an API key; "" for none

	// Source is where URL was found, for messages, e.g. the path of an api.json.
	Source string
	// Patience is how long a request is repeated while the mesh has no leader,
	// and how long a stream tries to come back. 0 means ten seconds; a negative
	// one means not at all.
	Patience time.Duration
	// Transport carries the requests; nil means HTTP over TCP.
	Transport http.RoundTripper
	// UserAgent names the program to the node.
	UserAgent string
}

// Client talks to one node. It is safe for use by many goroutines and starts
// none of its own, but for those whose methods say so.
type Client struct {
	cfg  Config
	base *url.URL
	http *http.Client
}

// New makes a client. It does not connect.
func New(cfg Config) (*Client, error) {
	base, err := parseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	cfg.Patience = cmp.Or(cfg.Patience, patienceDefault)
	cfg.UserAgent = cmp.Or(cfg.UserAgent, "labmesh-client")
	if cfg.Transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost = connsPerHost
		cfg.Transport = t
	}
	return &Client{cfg: cfg, base: base, http: &http.Client{Transport: cfg.Transport}}, nil
}

// URL is the address of the node's API.
func (c *Client) URL() string { return c.base.String() }

// Close lets go of idle connections. It is safe twice.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// parseURL takes an address as people write it: with or without a scheme.
func parseURL(s string) (*url.URL, error) {
	raw := s
	if !strings.Contains(s, "://") {
		raw = "http://" + s
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Hostname() == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, labmesh.RefuseField("addr", "%q is not the address of a node: write it as http://HOST:PORT or HOST:PORT", s)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawQuery, u.Fragment = "", ""
	return u, nil
}

func (c *Client) url(path string, query url.Values) string {
	u := c.base.String() + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	return u
}

func (c *Client) request(ctx context.Context, method, path string, query url.Values, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.url(path, query), bodyOf(body))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.cfg.Key != "" {
		req.Header.Set("X-API-Key", c.cfg.Key)
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	return req, nil
}
