package exec_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/exectest"
	"labmesh/exec/output"
)

// shelf is a place for files that holds one bundle, and remembers what was kept.
type shelf struct {
	takes   time.Duration // to unpack
	unpack  error
	refuses error // to keep

	mu       sync.Mutex
	unpacked int
	kept     [][]string // the names handed over, of each call
	logs     string
}

func (s *shelf) Unpack(ctx context.Context, _, dir string) error {
	s.mu.Lock()
	s.unpacked++
	s.mu.Unlock()
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.unpack != nil {
		return s.unpack
	}
	return os.WriteFile(filepath.Join(dir, "input"), []byte("given"), 0o600)
}

func (s *shelf) Keep(_ context.Context, dir string, patterns []string, extra string) (*labmesh.Outputs, error) {
	if s.refuses != nil {
		return nil, s.refuses
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, p := range patterns {
		found, _ := filepath.Glob(filepath.Join(dir, p))
		names = append(names, found...)
	}
	for i := range names {
		names[i] = filepath.Base(names[i])
	}
	own, _ := os.ReadDir(extra)
	for _, e := range own {
		names = append(names, ".labmesh/"+e.Name())
	}
	log, _ := os.ReadFile(filepath.Join(extra, "stdout"))
	s.logs = string(log)
	s.kept = append(s.kept, names)
	if len(names) == 0 {
		return nil, nil
	}
	return &labmesh.Outputs{Tree: "t", Files: len(names)}, nil
}

// busy is a runner that prints and leaves files.
type busy struct {
	prints int
	keeps  bool
	fails  bool
	saw    string // what it found in its work directory
}

func (b *busy) Run(ctx context.Context, a exec.Attempt) labmesh.Outcome {
	in, _ := os.ReadFile(filepath.Join(a.Work(), "input"))
	b.saw = string(in)
	a.Output.Write(output.Stdout, []byte(strings.Repeat("x", b.prints)))
	if err := os.WriteFile(filepath.Join(a.Work(), "report.xml"), nil, 0o600); err != nil {
		return labmesh.Outcome{Cause: labmesh.CauseSpawn, Error: err.Error()}
	}
	if b.keeps {
		if err := errors.Join(os.Mkdir(a.Keep(), 0o700), os.WriteFile(filepath.Join(a.Keep(), "junit.xml"), nil, 0o600)); err != nil {
			return labmesh.Outcome{Cause: labmesh.CauseSpawn, Error: err.Error()}
		}
	}
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return labmesh.Outcome{}
	}
	if b.fails {
		return labmesh.Outcome{Cause: labmesh.CauseExit, Error: "exit code 1"}
	}
	return labmesh.Outcome{OK: true}
}

// once runs one task on a worker with files, and returns how it ended and what
// it said on stderr.
func once(t *testing.T, files exec.Files, r exec.Runner, spec labmesh.Spec) (o labmesh.Outcome, stderr, dir string) {
	t.Helper()
	dir = t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		desk := &exectest.Desk{}
		spec.Kind = labmesh.Custom
		desk.Put(labmesh.Task{ID: "a", Attempt: 1, Phase: labmesh.Assigned, Spec: spec})
		w, err := exec.Open(t.Context(), exec.Config{Worker: "w", Dir: dir, Desk: desk, Floor: 1, Files: files,
			Runners: map[labmesh.Kind]exec.Runner{labmesh.Custom: r}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		time.Sleep(20 * time.Minute)
		if late := desk.Late(); len(late) > 0 {
			t.Errorf("declined: %v", late)
		}
		ended := false
		if o, ended = desk.Outcome("a"); !ended {
			t.Error("it has not ended")
		}
		if log, err := w.Logs(t.Context(), "a", 1, output.Query{Stream: output.Stderr}); err == nil {
			data := make([]byte, 4096)
			n, _ := log.Read(data)
			stderr = string(data[:n])
			log.Close()
		}
		cancel()
		if err := errors.Join(<-done, w.Close()); err != nil {
			t.Error(err)
		}
	})
	return o, stderr, filepath.Join(dir, "a", "1")
}

const anyBundle = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestBundleIsThereAndItsCopyGoesWithTheAttempt(t *testing.T) {
	t.Parallel()
	s, r := &shelf{takes: 10 * time.Minute / 2}, &busy{}
	o, _, dir := once(t, s, r, labmesh.Spec{Bundle: anyBundle, TimeoutSeconds: 10})
	if !o.OK || r.saw != "given" || s.unpacked != 1 || len(s.kept) > 0 || o.Outputs != nil {
		t.Errorf("outcome %+v, saw %q, unpacked %d times, kept %v", o, r.saw, s.unpacked, s.kept)
	}
	if _, err := os.Stat(filepath.Join(dir, "work")); err == nil {
		t.Error("the copy of the bundle is still there")
	}
}

func TestBundleThatCannotBeHad(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		shelf *shelf
		want  labmesh.Cause
		says  string
	}{
		{"no node has it", &shelf{unpack: labmesh.Refuse(labmesh.Unavailable, "no node has it")}, labmesh.CauseBundle, "no node has it"},
		{"it is malformed", &shelf{unpack: labmesh.Refuse(labmesh.Invalid, "a path leads out of the tree")}, labmesh.CauseConfig, "out of the tree"},
		{"it is a bomb", &shelf{unpack: labmesh.Refuse(labmesh.TooLarge, "over 1 TiB")}, labmesh.CauseConfig, "1 TiB"},
		{"the disk is full", &shelf{unpack: &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}}, labmesh.CauseDisk, "no space"},
		{"it never comes", &shelf{takes: time.Hour}, labmesh.CauseBundle, "longer than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := &busy{saw: "did not run"}
			o, _, _ := once(t, c.shelf, r, labmesh.Spec{Bundle: anyBundle})
			if o.OK || o.Cause != c.want || !strings.Contains(o.Error, c.says) || !strings.Contains(o.Error, "bundle 0123") || r.saw != "did not run" {
				t.Errorf("outcome %+v, the program saw %q", o, r.saw)
			}
		})
	}
}

func TestWhatIsKept(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		runner busy
		asked  []string
		want   []string
		note   string
	}{
		{"nothing asked, little said", busy{prints: 100}, nil, nil, ""},
		{"more said than the result holds", busy{prints: 10_000}, nil, []string{".labmesh/stdout"}, ""},
		{"artifacts asked", busy{prints: 1}, []string{"*.xml"}, []string{"report.xml", ".labmesh/stdout"}, ""},
		{"of a failed attempt", busy{fails: true}, []string{"*.xml"}, []string{"report.xml"}, ""},
		{"what the runner keeps", busy{keeps: true}, nil, []string{".labmesh/junit.xml"}, ""},
		{"no file matches", busy{}, []string{"*.nothing"}, nil, "no file in the work directory matches the artifacts *.nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := &shelf{}
			o, stderr, dir := once(t, s, &c.runner, labmesh.Spec{Artifacts: c.asked})
			var got []string
			if len(s.kept) > 0 {
				got = s.kept[0]
			}
			if !slices.Equal(got, c.want) || len(s.kept) > 1 || len(s.logs) > 0 != (c.runner.prints > 0 && len(c.want) > 0) {
				t.Errorf("kept %v, want %v; a log of %d bytes", s.kept, c.want, len(s.logs))
			}
			if o.OK == c.runner.fails || (o.Outputs != nil) != (len(c.want) > 0) || !strings.Contains(stderr, c.note) {
				t.Errorf("outcome %+v, stderr %q", o, stderr)
			}
			if _, err := os.Stat(filepath.Join(dir, "keep")); err == nil && len(c.want) > 0 {
				t.Error("what was handed over is still in the attempt's directory")
			}
		})
	}
}

func TestWhatCannotBeKept(t *testing.T) {
	t.Parallel()
	full := &shelf{refuses: &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}}
	if o, _, _ := once(t, full, &busy{}, labmesh.Spec{Artifacts: []string{"*"}}); o.OK || o.Cause != labmesh.CauseDisk {
		t.Errorf("artifacts on a full disk: %+v", o)
	}
	big := &shelf{refuses: labmesh.Refuse(labmesh.TooLarge, "too much")}
	if o, _, _ := once(t, big, &busy{}, labmesh.Spec{Artifacts: []string{"*"}}); o.OK || o.Cause != labmesh.CauseConfig {
		t.Errorf("too much: %+v", o)
	}
	if o, stderr, _ := once(t, big, &busy{fails: true}, labmesh.Spec{Artifacts: []string{"*"}}); o.Cause != labmesh.CauseExit || !strings.Contains(stderr, "could not be kept: too much") {
		t.Errorf("too much of a failed attempt: %+v, %q", o, stderr)
	}
	if o, stderr, _ := once(t, full, &busy{prints: 10_000}, labmesh.Spec{}); !o.OK || !strings.Contains(stderr, "could not be kept") {
		t.Errorf("only a log: %+v, %q", o, stderr)
	}
}
