package nodetest_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/content"
	"labmesh/content/pack"
	"labmesh/exec"
	"labmesh/exec/output"
	"labmesh/node/httpapi"
	"labmesh/node/nodetest"
)

// script is a runner in Go.
type script func(ctx context.Context, a exec.Attempt) labmesh.Outcome

func (s script) Run(ctx context.Context, a exec.Attempt) labmesh.Outcome { return s(ctx, a) }

// copies copies in.txt of its bundle to out/, after a while.
func copies(takes time.Duration) script {
	return func(ctx context.Context, a exec.Attempt) labmesh.Outcome {
		data, err := os.ReadFile(filepath.Join(a.Work(), "in.txt"))
		if err == nil {
			err = os.Mkdir(filepath.Join(a.Work(), "out"), 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(a.Work(), "out", "out.txt"), append([]byte(a.Worker+" got "), data...), 0o600)
		}
		if err != nil {
			return labmesh.Outcome{Cause: labmesh.CauseExit, Error: err.Error()}
		}
		a.Output.Write(output.Stdout, []byte("copied"))
		select {
		case <-time.After(takes):
			return labmesh.Outcome{OK: true}
		case <-ctx.Done():
			return labmesh.Outcome{}
		}
	}
}

func startWith(t *testing.T, n int, r exec.Runner) *nodetest.Mesh {
	t.Helper()
	return nodetest.Start(t, n, map[labmesh.Kind]exec.Runner{labmesh.Custom: r})
}

// upload gives node i a bundle of one file, and returns its id.
func upload(t *testing.T, m *nodetest.Mesh, i int, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "in.txt"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	svc := m.Nodes[i].Service()
	manifest, err := pack.Dir(t.Context(), dir, pack.Options{}, func(ctx context.Context, _ content.Chunk, data []byte) error { return svc.PutChunk(ctx, data) })
	if err != nil {
		t.Fatal(err)
	}
	b, err := svc.PutBundle(t.Context(), manifest.Encode())
	if err != nil || b.ID != manifest.ID() || b.Files != 1 {
		t.Fatalf("put bundle: %+v, %v", b, err)
	}
	return b.ID
}

// artifact reads a file that a task left, through node i.
func artifact(t *testing.T, m *nodetest.Mesh, i int, id labmesh.TaskID, path string) string {
	t.Helper()
	_, r, err := m.Nodes[i].Service().OpenArtifact(t.Context(), id, 0, path)
	if err != nil {
		t.Errorf("open %s of %s on node %d: %v", path, id, i, err)
		return ""
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Errorf("read %s of %s on node %d: %v", path, id, i, err)
	}
	return string(data)
}

// paths are the files that a task left, as node i lists them.
func paths(t *testing.T, m *nodetest.Mesh, i int, id labmesh.TaskID) (out []string) {
	t.Helper()
	list, err := m.Nodes[i].Service().Artifacts(t.Context(), id, 0)
	if err != nil {
		t.Errorf("artifacts of %s on node %d: %v", id, i, err)
	}
	for _, f := range list.Files {
		out = append(out, f.Path)
	}
	return out
}

func completed(t *testing.T, m *nodetest.Mesh, i int, id labmesh.TaskID) labmesh.Task {
	t.Helper()
	m.Wait(t, 5*time.Minute, "it to end", func() bool { return m.Task(t, i, id).Phase.Final() })
	task := m.Task(t, i, id)
	if task.Phase != labmesh.Completed {
		t.Errorf("%s is %s: %s (%s)", id, task.Phase, task.Error, task.Cause)
	}
	return task
}

func TestABundleGoesWhereItsTaskRunsAndFilesComeBackToAnyNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startWith(t, 3, copies(time.Second))
		bundle := upload(t, m, 0, "hello")
		id := m.Submit(t, 0, labmesh.Spec{Bundle: bundle, Artifacts: []string{"out/**"}, Requirements: labmesh.Requirements{WorkerID: "w1"}})
		task := completed(t, m, 0, id)
		if task.Outputs == nil || task.Outputs.Files != 2 || task.Attempt != 1 {
			t.Errorf("outputs %+v after %d attempts", task.Outputs, task.Attempt)
		}
		time.Sleep(time.Second)
		for i := range m.Nodes {
			if got := paths(t, m, i, id); !slices.Equal(got, []string{".labmesh/stdout", "out/out.txt"}) {
				t.Errorf("node %d lists %v", i, got)
			}
			if got := artifact(t, m, i, id, "out/out.txt"); got != "w1 got hello" {
				t.Errorf("node %d has %q", i, got)
			}
			if got := artifact(t, m, i, id, ".labmesh/stdout"); got != "copied" {
				t.Errorf("node %d has the output %q", i, got)
			}
		}
		if _, _, err := m.Nodes[2].Service().OpenArtifact(t.Context(), id, 0, "../in.txt"); labmesh.ReasonOf(err) != labmesh.NotFound {
			t.Errorf("a file outside: %v", err)
		}
		if _, err := m.Nodes[2].Service().Artifacts(t.Context(), id, 7); labmesh.ReasonOf(err) != labmesh.NotFound {
			t.Errorf("an attempt that was not: %v", err)
		}
	})
}

func TestTheSubmitterMayLeaveAndSoMayTheWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startWith(t, 4, copies(time.Second))
		bundle := upload(t, m, 3, "from one who leaves")
		m.Halt(t, 3) // in order: what is on its way to a second node goes there first
		time.Sleep(time.Second)
		id := m.Submit(t, 0, labmesh.Spec{Bundle: bundle, Artifacts: []string{"out"}, Requirements: labmesh.Requirements{WorkerID: "w1"}})
		completed(t, m, 0, id)
		m.Halt(t, 1)
		time.Sleep(time.Second)
		if got := artifact(t, m, 2, id, "out/out.txt"); got != "w1 got from one who leaves" {
			t.Errorf("it left %q", got)
		}
	})
}

func TestABundleThatNobodyHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startWith(t, 2, copies(time.Second))
		svc := m.Nodes[1].Service()
		none := labmesh.Spec{Kind: labmesh.Custom, Config: []byte(`{}`), Bundle: strings.Repeat("0", 64)}
		_, err := svc.Submit(t.Context(), httpapi.Caller{Name: "test"}, []labmesh.Spec{none})
		field := func(err error) string {
			e, _ := err.(*labmesh.Error)
			if e == nil || e.Reason != labmesh.Invalid {
				t.Fatalf("not refused as it should be: %v", err)
			}
			return e.Field
		}
		if field(err) != "bundle" || !strings.Contains(err.Error(), "upload it again") {
			t.Errorf("refused with %v", err)
		}
		plain := none
		plain.Bundle = ""
		if _, err = svc.Submit(t.Context(), httpapi.Caller{Name: "test"}, []labmesh.Spec{plain, none}); field(err) != "tasks[1].bundle" {
			t.Errorf("refused with %v", err)
		}
		if n := svc.Status(t.Context()).TasksTotal; n > 0 {
			t.Errorf("%d tasks came in all the same", n)
		}
	})
}

func TestATaskWithABundleOutlivesItsWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startWith(t, 3, copies(20*time.Second))
		bundle := upload(t, m, 0, "again")
		id := m.Submit(t, 0, labmesh.Spec{Bundle: bundle, Artifacts: []string{"*.txt"}})
		m.Wait(t, time.Minute, "it to run", func() bool { return m.Task(t, 0, id).Phase == labmesh.Running })
		first := m.Task(t, 0, id).Worker
		at := int(first[1] - '0')
		ask := (at + 1) % 3
		m.Cut(at)
		m.Wait(t, 5*time.Minute, "it to end elsewhere", func() bool { return m.Task(t, ask, id).Phase.Final() })
		task := completed(t, m, ask, id)
		if task.Worker == first || task.Attempt != 2 || task.Failed != 0 {
			t.Errorf("it ended on %s after %d attempts, of which %d count as its own failure", task.Worker, task.Attempt, task.Failed)
		}
		time.Sleep(10 * time.Second)
		if got := artifact(t, m, ask, id, "out/out.txt"); got != string(task.Worker)+" got again" {
			t.Errorf("it left %q", got)
		}
		m.Heal(at)
		time.Sleep(30 * time.Second)
		if got := artifact(t, m, at, id, "out/out.txt"); got != string(task.Worker)+" got again" {
			t.Errorf("on the node that was cut off it is %q", got)
		}
	})
}

func TestWhatAFailedAttemptLeftIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startWith(t, 1, script(func(_ context.Context, a exec.Attempt) labmesh.Outcome {
			if err := os.WriteFile(filepath.Join(a.Work(), "core"), []byte{byte('0' + a.Number)}, 0o600); err != nil {
				return labmesh.Outcome{Cause: labmesh.CauseSpawn, Error: err.Error()}
			}
			return labmesh.Outcome{Cause: labmesh.CauseExit, Error: "exit code 1"}
		}))
		id := m.Submit(t, 0, labmesh.Spec{Artifacts: []string{"core"}, Retry: &labmesh.RetryPolicy{MaxRetries: 1}})
		m.Wait(t, time.Minute, "it to end", func() bool { return m.Task(t, 0, id).Phase.Final() })
		for attempt, want := range map[int]string{0: "2", 1: "1", 2: "2"} {
			_, r, err := m.Nodes[0].Service().OpenArtifact(t.Context(), id, attempt, "core")
			if err != nil {
				t.Fatal(err)
			}
			data, _ := io.ReadAll(r)
			if r.Close(); string(data) != want {
				t.Errorf("attempt %d left %q", attempt, data)
			}
		}
	})
}

// TestUploadsAreChecked sends what no honest client sends.
func TestUploadsAreChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startWith(t, 1, copies(0))
		svc := m.Nodes[0].Service()
		bundle := func(files ...content.File) *content.Manifest {
			index := content.EncodeIndex(files)
			var bytes int64
			for _, f := range files {
				bytes += f.Size
			}
			stream := append(make([]byte, bytes), index...)
			if err := svc.PutChunk(t.Context(), stream); err != nil {
				t.Fatal(err)
			}
			return &content.Manifest{Files: len(files), Bytes: bytes, Index: int64(len(index)),
				Chunks: []content.Chunk{{Hash: content.Sum(stream), Size: uint32(len(stream))}}}
		}
		huge := bundle(content.File{Path: "a", Kind: content.Plain, Size: 1})
		many := *huge
		many.Files = 200_000
		absent := *huge
		absent.Chunks = []content.Chunk{{Hash: content.Sum([]byte("x")), Size: huge.Chunks[0].Size}}
		for name, c := range map[string]struct {
			m    *content.Manifest
			want labmesh.Reason
		}{
			"a good one":                {huge, ""},
			"a path that leads out":     {bundle(content.File{Path: "../a", Kind: content.Plain}), labmesh.Invalid},
			"an absolute path":          {bundle(content.File{Path: "/etc/passwd", Kind: content.Plain}), labmesh.Invalid},
			"a link that leads out":     {bundle(content.File{Path: "a", Kind: content.Link, Target: "../../etc"}), labmesh.Invalid},
			"an absolute link":          {bundle(content.File{Path: "a", Kind: content.Link, Target: "/etc/passwd"}), labmesh.Invalid},
			"a file below a link":       {bundle(content.File{Path: "a", Kind: content.Link, Target: "b"}, content.File{Path: "a/c", Kind: content.Plain}), labmesh.Invalid},
			"a device":                  {bundle(content.File{Path: "a", Kind: 'c'}), labmesh.Invalid},
			"too many files":            {&many, labmesh.TooLarge},
			"a chunk that was not sent": {&absent, labmesh.Conflict},
		} {
			if _, err := svc.PutBundle(t.Context(), c.m.Encode()); labmesh.ReasonOf(err) != c.want {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, junk := range [][]byte{nil, []byte("junk"), huge.Encode()[:40]} {
			if _, err := svc.PutBundle(t.Context(), junk); labmesh.ReasonOf(err) != labmesh.Invalid {
				t.Errorf("%q: %v", junk, err)
			}
		}
	})
}
