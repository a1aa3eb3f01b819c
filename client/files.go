package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/content"
	"labmesh/content/pack"
)

// Limits of uploads.
const (
	uploadGoal    = 8 << 20          // bytes of chunks asked after and sent together
	uploadTimeout = 10 * time.Minute // for one of them, over a thin line
)

// BundleOptions say what of a directory goes into a bundle.
type BundleOptions struct {
	// Paths are what is taken, relative to the directory: all of it when there are none.
	Paths []string
	// NoIgnore takes also what .gitignore and .labmeshignore leave out.
	NoIgnore bool
	// Progress is called now and then with how far it is, never by two goroutines at once.
	Progress func(BundleStats)
}

// BundleStats are the figures of an upload.
type BundleStats struct {
	Files      int   `json:"files"`
	Bytes      int64 `json:"bytes"` // of all chunks, read and cut so far
	Chunks     int   `json:"chunks"`
	SentBytes  int64 `json:"sent_bytes"` // of those that the node did not have
	SentChunks int   `json:"sent_chunks"`
}

// UploadBundle packs a directory and sends the node what it lacks of it. It
// returns the bundle's id, for [labmesh.Spec]. The same files have the same
// id, whoever packs them, and what the node has is not sent again.
func (c *Client) UploadBundle(ctx context.Context, dir string, opts BundleOptions) (id string, stats BundleStats, err error) {
	u := &upload{c: c, progress: opts.Progress, seen: map[content.Hash]bool{}}
	m, err := pack.Dir(ctx, dir, pack.Options{Paths: opts.Paths, NoIgnore: opts.NoIgnore}, u.put)
	if err == nil {
		err = u.flush(ctx)
	}
	if err != nil {
		return "", u.stats, err
	}
	u.stats.Files = m.Files
	var reply api.Bundle
	err = c.do(ctx, call{method: http.MethodPost, path: "/api/bundles", body: m.Encode(), media: api.ManifestType, out: &reply, timeout: uploadTimeout})
	if err == nil && reply.ID != m.ID() {
		err = fmt.Errorf("upload %s: the node calls it %.64q, and here it is %s: are both of the same version?", dir, reply.ID, m.ID())
	}
	return m.ID(), u.stats, err
}

// upload sends the chunks of one bundle.
type upload struct {
	c        *Client
	progress func(BundleStats)

	mu    sync.Mutex
	seen  map[content.Hash]bool
	batch chunks
	stats BundleStats
}

// chunks are those that are asked after, and sent, together.
type chunks struct {
	hashes []string
	data   [][]byte
	bytes  int
}

// put is [pack.Put]. Chunks wait until there are some to go together.
func (u *upload) put(ctx context.Context, c content.Chunk, data []byte) error {
	u.mu.Lock()
	u.stats.Chunks++
	u.stats.Bytes += int64(len(data))
	if u.seen[c.Hash] {
		u.mu.Unlock()
		return nil
	}
	u.seen[c.Hash] = true
	u.batch.hashes = append(u.batch.hashes, c.Hash.String())
	u.batch.data = append(u.batch.data, append([]byte(nil), data...))
	u.batch.bytes += len(data)
	if u.batch.bytes < uploadGoal {
		u.mu.Unlock()
		return nil
	}
	full := u.batch
	u.batch = chunks{}
	u.mu.Unlock()
	return u.send(ctx, full)
}

// flush sends what is left.
func (u *upload) flush(ctx context.Context) error {
	u.mu.Lock()
	rest := u.batch
	u.batch = chunks{}
	u.mu.Unlock()
	if len(rest.hashes) == 0 {
		return nil
	}
	return u.send(ctx, rest)
}

// send asks which chunks the node lacks, and sends these.
func (u *upload) send(ctx context.Context, b chunks) error {
	var reply api.MissingReply
	if err := u.c.do(ctx, call{method: http.MethodPost, path: "/api/bundles/missing", in: api.MissingRequest{Chunks: b.hashes}, out: &reply}); err != nil {
		return err
	}
	lacks := make(map[string]bool, len(reply.Missing))
	for _, h := range reply.Missing {
		lacks[h] = true
	}
	body := make([]byte, 0, b.bytes+4*len(b.data))
	n := 0
	for i, h := range b.hashes {
		if lacks[h] {
			body = api.AppendChunk(body, b.data[i])
			n++
		}
	}
	if n > 0 {
		if err := u.c.do(ctx, call{method: http.MethodPost, path: "/api/bundles/chunks", body: body, media: api.ChunksType, timeout: uploadTimeout}); err != nil {
			return err
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stats.SentChunks += n
	u.stats.SentBytes += int64(len(body) - 4*n)
	if u.progress != nil {
		u.progress(u.stats)
	}
	return nil
}

// Artifacts lists the files that the newest attempt of a task left, of those that left any.
func (c *Client) Artifacts(ctx context.Context, id labmesh.TaskID) (api.Artifacts, error) {
	return c.ArtifactsOf(ctx, id, 0)
}

// ArtifactsOf lists the files that one attempt of a task left; 0 is the newest.
func (c *Client) ArtifactsOf(ctx context.Context, id labmesh.TaskID, attempt int) (api.Artifacts, error) {
	var list api.Artifacts
	err := c.do(ctx, call{method: http.MethodGet, path: taskPath(id) + "/artifacts", query: ofAttempt(attempt), out: &list, timeout: uploadTimeout})
	return list, err
}

// Artifact reads one file that the newest attempt of a task left. Close it. A
// file that does not come to its end reads as an error, never as a shorter one.
func (c *Client) Artifact(ctx context.Context, id labmesh.TaskID, path string) (io.ReadCloser, error) {
	return c.ArtifactOf(ctx, id, 0, path)
}

// ArtifactOf is Artifact for one attempt of a task; 0 is the newest.
func (c *Client) ArtifactOf(ctx context.Context, id labmesh.TaskID, attempt int, path string) (io.ReadCloser, error) {
	deadline := time.Now().Add(c.cfg.Patience)
	for n := 0; ; n++ {
		body, err := c.openArtifact(ctx, id, attempt, path)
		wait := min(retryWaitMin<<min(n, 6), retryWaitMax)
		r := labmesh.ReasonOf(err)
		if err == nil || r != labmesh.Unavailable && r != labmesh.Exhausted || time.Now().Add(wait).After(deadline) {
			return body, err
		}
		if !sleep(ctx, wait) {
			return nil, context.Cause(ctx)
		}
	}
}

func (c *Client) openArtifact(ctx context.Context, id labmesh.TaskID, attempt int, path string) (io.ReadCloser, error) {
	req, err := c.request(ctx, http.MethodGet, taskPath(id)+"/artifacts/"+escapePath(path), ofAttempt(attempt), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreached(ctx, err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, refusalOf(resp)
	}
	return resp.Body, nil
}

// escapePath escapes what is between the slashes.
func escapePath(path string) string { return (&url.URL{Path: path}).EscapedPath() }

func ofAttempt(n int) url.Values {
	if n == 0 {
		return nil
	}
	return url.Values{"attempt": {strconv.Itoa(n)}}
}
