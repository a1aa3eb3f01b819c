package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"labmesh"
	"labmesh/api"
)

func (f *fake) MissingChunks(_ context.Context, hashes []string) (missing []string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range hashes {
		if _, ok := f.chunks[h]; !ok {
			missing = append(missing, h)
		}
	}
	return missing, f.down
}

func (f *fake) PutChunk(_ context.Context, data []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.chunks == nil {
		f.chunks = map[string][]byte{}
	}
	sum := sha256.Sum256(data)
	f.chunks[hex.EncodeToString(sum[:])] = bytes.Clone(data)
	return f.down
}

func (f *fake) PutBundle(_ context.Context, manifest []byte) (api.Bundle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(manifest) == 0 || manifest[0] != 'M' {
		return api.Bundle{}, labmesh.Refuse(labmesh.Invalid, "manifest: it does not begin as one")
	}
	f.bundle = manifest
	return api.Bundle{ID: strings.Repeat("0", 64), Files: 1, Bytes: 2}, f.down
}

func (f *fake) Artifacts(ctx context.Context, id labmesh.TaskID, attempt int) (api.Artifacts, error) {
	if _, err := f.Task(ctx, id); err != nil {
		return api.Artifacts{}, err
	}
	out := api.Artifacts{Task: id, Attempt: max(attempt, 1)}
	for name, text := range f.tree {
		out.Files = append(out.Files, api.Artifact{Path: name, Bytes: int64(len(text))})
	}
	return out, f.down
}

// seekable is a file of the fake that can seek; its content begins with "seek".
type seekable struct{ *strings.Reader }

func (seekable) Close() error { return nil }

func (f *fake) OpenArtifact(_ context.Context, _ labmesh.TaskID, _ int, name string) (api.Artifact, io.ReadCloser, error) {
	text, ok := f.tree[name]
	switch {
	case !ok:
		return api.Artifact{}, nil, labmesh.Refuse(labmesh.NotFound, "the attempt left no %s", name)
	case strings.HasPrefix(text, "seek"):
		return api.Artifact{Path: name, Bytes: int64(len(text))}, seekable{strings.NewReader(text)}, nil
	case strings.HasPrefix(text, "break"):
		return api.Artifact{Path: name, Bytes: 1000}, io.NopCloser(io.MultiReader(strings.NewReader(text), failing{})), nil
	}
	return api.Artifact{Path: name, Bytes: int64(len(text))}, io.NopCloser(strings.NewReader(text)), nil
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("its node is gone") }

func hashOf(data string) string {
	sum := sha256.Sum256([]byte(data))
	return hex.EncodeToString(sum[:])
}

func TestUpload(t *testing.T) {
	t.Parallel()
	f := newFake()
	a, _ := newAPI(t, f)
	body := string(api.AppendChunk(api.AppendChunk(nil, []byte("one")), []byte("two")))
	w := do(a, "POST", "/api/bundles/chunks", body)
	if got := strings.TrimSpace(w.Body.String()); w.Code != 200 || got != `{"chunks":2,"bytes":6}` {
		t.Errorf("chunks: %d %s", w.Code, got)
	}
	ask, _ := json.Marshal(api.MissingRequest{Chunks: []string{hashOf("one"), hashOf("three"), hashOf("two")}})
	var missing api.MissingReply
	w = do(a, "POST", "/api/bundles/missing", string(ask))
	if err := json.Unmarshal(w.Body.Bytes(), &missing); err != nil || !slices.Equal(missing.Missing, []string{hashOf("three")}) {
		t.Errorf("missing: %v %d %s", err, w.Code, w.Body)
	}
	if w = do(a, "POST", "/api/bundles", "M and the rest\x00\xff"); w.Code != 200 || object(t, w)["id"] != strings.Repeat("0", 64) || string(f.bundle) != "M and the rest\x00\xff" {
		t.Errorf("bundle: %d %s", w.Code, w.Body)
	}
}

func TestUploadRefusesWhatIsNone(t *testing.T) {
	t.Parallel()
	f := newFake()
	a, _ := newAPI(t, f)
	ask := func(n int, hash string) string {
		body, _ := json.Marshal(api.MissingRequest{Chunks: slices.Repeat([]string{hash}, n)})
		return string(body)
	}
	for _, c := range []struct {
		path, body string
		status     int
		says       string
	}{
		{"/api/bundles/missing", ask(1, "../../etc/passwd"), 400, "chunks[0]"},
		{"/api/bundles/missing", ask(1, strings.ToUpper(hashOf("x"))), 400, "64 hexadecimal"},
		{"/api/bundles/missing", ask(api.HashesMax+1, hashOf("x")), 413, "in parts"},
		{"/api/bundles/missing", `{"chunks":1}`, 400, "chunks"},
		{"/api/bundles/chunks", "\x00\x00", 400, "broke off"},
		{"/api/bundles/chunks", "\x00\x00\x00\x00", 400, "chunk of 0 bytes"},
		{"/api/bundles/chunks", "\xff\xff\xff\xff", 400, "4294967295 bytes"},
		{"/api/bundles/chunks", "\x00\x00\x00\x09short", 400, "after 5 of its 9 bytes"},
		{"/api/bundles", "", 400, "does not begin"},
		{"/api/bundles", "M" + strings.Repeat("x", api.ManifestBytesMax), 413, "larger than"},
	} {
		if w := do(a, "POST", c.path, c.body); w.Code != c.status || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s %.40q: %d %s, want %d %q", c.path, c.body, w.Code, w.Body, c.status, c.says)
		}
	}
	if len(f.chunks) > 0 || f.bundle != nil {
		t.Errorf("something came in: %v", f.chunks)
	}
}

func TestArtifacts(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.tree = map[string]string{"out/a b.txt": "seek and find", ".labmesh/stdout": "plain"}
	a, _ := newAPI(t, f)
	do(a, "POST", "/api/tasks", custom)
	var list api.Artifacts
	w := do(a, "GET", "/api/tasks/t1/artifacts", "")
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || len(list.Files) != 2 || list.Attempt != 1 {
		t.Errorf("list: %v %s", err, w.Body)
	}
	if w = do(a, "GET", "/api/tasks/t1/artifacts?attempt=3", ""); object(t, w)["attempt"] != 3.0 {
		t.Errorf("another attempt: %s", w.Body)
	}
	w = do(a, "GET", "/api/tasks/t1/artifacts/out/a%20b.txt", "")
	if w.Code != 200 || w.Body.String() != "seek and find" || w.Header().Get("Content-Disposition") != `attachment; filename="a b.txt"` {
		t.Errorf("a file: %d %v %s", w.Code, w.Header(), w.Body)
	}
	w = do(a, "GET", "/api/tasks/t1/artifacts/out/a%20b.txt", "", "Range", "bytes=5-7")
	if w.Code != http.StatusPartialContent || w.Body.String() != "and" {
		t.Errorf("a range: %d %s", w.Code, w.Body)
	}
	w = do(a, "GET", "/api/tasks/t1/artifacts/.labmesh/stdout", "")
	if w.Code != 200 || w.Body.String() != "plain" || w.Header().Get("Content-Length") != "5" {
		t.Errorf("a stream: %d %v %s", w.Code, w.Header(), w.Body)
	}
	if w = do(a, "HEAD", "/api/tasks/t1/artifacts/.labmesh/stdout", ""); w.Code != 200 || w.Body.Len() > 0 || w.Header().Get("Content-Length") != "5" {
		t.Errorf("its head: %d %v %s", w.Code, w.Header(), w.Body)
	}
	for path, status := range map[string]int{
		"/api/tasks/t1/artifacts/none": 404, "/api/tasks/nobody/artifacts": 404, "/api/tasks/t1/artifacts?attempt=x": 400, "/api/tasks/t1/artifacts/": 404,
		"/api/tasks/t1/artifacts/..%2f..%2fx": 404, "/api/tasks/t1/artifacts/../../x": 404, "/api/tasks/t1/artifacts/a?attempt=-1": 400,
	} {
		if w := do(a, "GET", path, ""); w.Code != status {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestABrokenArtifactIsNoWholeOne(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.tree = map[string]string{"a": "breaks"}
	a, _ := newAPI(t, f)
	srv := httptest.NewServer(a)
	defer srv.Close()
	req, _ := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/api/tasks/t1/artifacts/a", nil)
	req.Header.Set("X-API-Key", adminKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return // nothing of it came through
	}
	defer resp.Body.Close()
	if data, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("it looks whole: %q", data)
	}
}
