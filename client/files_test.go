package client_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
	"labmesh/content"
)

// depot takes bundles as a node does.
type depot struct {
	mu     sync.Mutex
	chunks map[string]bool
	bundle *content.Manifest
	sent   int // bytes of chunks
	fails  int // how many requests are refused first
}

func (d *depot) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fails > 0 {
		d.fails--
		refuse(w, 503, "no leader")
		return
	}
	switch r.URL.Path {
	case "/api/bundles/missing":
		var req api.MissingRequest
		_ = json.NewDecoder(r.Body).Decode(&req)
		var out api.MissingReply
		for _, h := range req.Chunks {
			if !d.chunks[h] {
				out.Missing = append(out.Missing, h)
			}
		}
		reply(w, 200, out)
	case "/api/bundles/chunks":
		buf := make([]byte, api.ChunkBytesMax)
		for {
			c, err := api.ReadChunk(r.Body, buf)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil || r.Header.Get("Content-Type") != api.ChunksType {
				refuse(w, 400, fmt.Sprint(err))
				return
			}
			d.chunks[content.Sum(c).String()] = true
			d.sent += len(c)
		}
		reply(w, 200, api.ChunksReply{})
	case "/api/bundles":
		data, _ := io.ReadAll(r.Body)
		m, err := content.DecodeManifest(data)
		if err != nil {
			refuse(w, 400, err.Error())
			return
		}
		for _, c := range m.Chunks {
			if !d.chunks[c.Hash.String()] {
				refuse(w, 409, "a chunk is missing")
				return
			}
		}
		d.bundle = m
		reply(w, 200, api.Bundle{ID: m.ID(), Files: m.Files, Bytes: m.Bytes})
	case "/api/tasks/t1/artifacts/out/a b?.txt":
		_, _ = io.WriteString(w, "of attempt "+r.URL.Query().Get("attempt"))
	case "/api/tasks/t1/artifacts":
		reply(w, 200, api.Artifacts{Task: "t1", Attempt: 2, Files: []api.Artifact{{Path: "x", Bytes: 3}}})
	default:
		refuse(w, 404, "there is no "+r.URL.Path)
	}
}

// tree makes a directory with some MiB in it.
func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	noise := rand.NewChaCha8([32]byte{1})
	for name, size := range map[string]int{"big.bin": 20 << 20, "a.txt": 10, "sub/b.txt": 0} {
		data := make([]byte, size)
		_, _ = noise.Read(data)
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestUploadSendsOnlyWhatIsMissing(t *testing.T) {
	t.Parallel()
	d := &depot{chunks: map[string]bool{}, fails: 1}
	c := newClient(t, d)
	dir := tree(t)
	calls := 0
	id, stats, err := c.UploadBundle(t.Context(), dir, client.BundleOptions{Progress: func(client.BundleStats) { calls++ }})
	if err != nil || d.bundle == nil || id != d.bundle.ID() || stats.Files != 3 || stats.SentBytes != int64(d.sent) || d.sent < 20<<20 || calls < 2 {
		t.Fatalf("id %s, stats %+v, %d bytes sent in %d steps, %v", id, stats, d.sent, calls, err)
	}
	before := d.sent
	again, stats, err := c.UploadBundle(t.Context(), dir, client.BundleOptions{})
	if err != nil || again != id || stats.SentBytes != 0 || stats.SentChunks != 0 || d.sent != before {
		t.Errorf("the same again: id %s, stats %+v, %d more bytes, %v", again, stats, d.sent-before, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a.txt"), []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	other, stats, err := c.UploadBundle(t.Context(), dir, client.BundleOptions{})
	if err != nil || other == id || stats.SentBytes == 0 || stats.SentBytes > 6<<20 {
		t.Errorf("one small file changed: stats %+v, %v", stats, err)
	}
	part, stats, err := c.UploadBundle(t.Context(), dir, client.BundleOptions{Paths: []string{"sub"}})
	if err != nil || part == id || stats.Files != 1 {
		t.Errorf("a part: stats %+v, %v", stats, err)
	}
}

func TestUploadOfWhatIsNotThere(t *testing.T) {
	t.Parallel()
	c := newClient(t, &depot{chunks: map[string]bool{}})
	if _, _, err := c.UploadBundle(t.Context(), filepath.Join(t.TempDir(), "none"), client.BundleOptions{}); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("no directory: %v", err)
	}
	if _, _, err := c.UploadBundle(t.Context(), t.TempDir(), client.BundleOptions{Paths: []string{"../x"}}); labmesh.ReasonOf(err) != labmesh.Invalid {
		t.Errorf("a path that leads out: %v", err)
	}
}

func TestArtifactsAreReadByTheirPath(t *testing.T) {
	t.Parallel()
	c := newClient(t, &depot{fails: 2})
	if list, err := c.Artifacts(t.Context(), "t1"); err != nil || list.Attempt != 2 || len(list.Files) != 1 {
		t.Errorf("list %+v, %v", list, err)
	}
	for attempt, want := range map[int]string{0: "of attempt ", 3: "of attempt 3"} {
		r, err := c.ArtifactOf(t.Context(), "t1", attempt, "out/a b?.txt")
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if r.Close(); string(data) != want || err != nil {
			t.Errorf("attempt %d: %q, %v", attempt, data, err)
		}
	}
	if _, err := c.Artifact(t.Context(), "t1", "none"); labmesh.ReasonOf(err) != labmesh.NotFound {
		t.Errorf("a file that is not there: %v", err)
	}
}
