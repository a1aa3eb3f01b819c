package exec_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/exectest"
	"labmesh/exec/output"
)

// slow is a runner that takes as long as a task's config says and then ends well.
type slow struct {
	mu            sync.Mutex
	running, most int
	ran           []labmesh.TaskID
}

func (s *slow) Run(ctx context.Context, a exec.Attempt) labmesh.Outcome {
	s.mu.Lock()
	s.running++
	s.most = max(s.most, s.running)
	s.ran = append(s.ran, a.Task.ID)
	s.mu.Unlock()
	defer func() { s.mu.Lock(); s.running--; s.mu.Unlock() }()
	a.Output.Write(output.Stdout, []byte("hello "))
	var d time.Duration
	_ = json.Unmarshal(a.Task.Spec.Config, &d)
	if d < 0 {
		panic("as asked")
	}
	select {
	case <-time.After(d):
		a.Output.Write(output.Stdout, []byte("world"))
		return labmesh.Outcome{OK: true, Result: json.RawMessage(`{}`)}
	case <-ctx.Done():
		return labmesh.Outcome{}
	}
}

func (s *slow) peak() int { s.mu.Lock(); defer s.mu.Unlock(); return s.most }

func (s *slow) starts() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.ran) }

func task(id string, d time.Duration) labmesh.Task {
	return labmesh.Task{ID: labmesh.TaskID(id), Attempt: 1, Phase: labmesh.Assigned,
		Spec: labmesh.Spec{Kind: labmesh.Custom, Config: json.RawMessage(fmt.Sprint(int64(d)))}}
}

// start runs a worker until the returned function is called.
func start(t *testing.T, dir string, slots int, desk *exectest.Desk, r exec.Runner) (*exec.Worker, func()) {
	t.Helper()
	w, err := exec.Open(t.Context(), exec.Config{Worker: "w", Dir: dir, Slots: slots, Desk: desk, Floor: 1,
		Runners: map[labmesh.Kind]exec.Runner{labmesh.Custom: r, labmesh.Benchmark: r}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	return w, func() {
		cancel()
		if err := errors.Join(<-done, w.Close(), w.Close()); err != nil {
			t.Error(err)
		}
	}
}

func want(t *testing.T, desk *exectest.Desk, id labmesh.TaskID, ok bool, cause labmesh.Cause) {
	t.Helper()
	o, ended := desk.Outcome(id)
	if !ended || o.OK != ok || o.Cause != cause {
		t.Errorf("%s: ended %v, outcome %+v; want ok %v, cause %q", id, ended, o, ok, cause)
	}
}

func TestTasksRunInSlots(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		desk, r := &exectest.Desk{}, &slow{}
		for i := range 10 {
			desk.Put(task(fmt.Sprintf("t%d", i), time.Minute))
		}
		all := task("all", time.Minute)
		all.Spec.Requirements.Exclusive = true
		desk.Put(all)
		_, stop := start(t, dir, 3, desk, r)
		time.Sleep(10 * time.Minute)
		if r.peak() != 3 {
			t.Errorf("%d ran at once in 3 slots", r.peak())
		}
		for i := range 10 {
			want(t, desk, labmesh.TaskID(fmt.Sprintf("t%d", i)), true, "")
		}
		want(t, desk, "all", true, "")
		stop()
	})
}

func TestStopsWhatIsCancelledTimedOutOrTakenAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		desk := &exectest.Desk{}
		late := task("late", time.Hour)
		late.Spec.TimeoutSeconds = 30
		desk.Put(task("cancelled", time.Hour), late, task("taken", time.Hour), task("waiting", 0), task("panics", -1))
		w, stop := start(t, dir, 3, desk, &slow{})
		time.Sleep(time.Second) // until their starts are reported
		if w.Running() != 3 {
			t.Errorf("%d running", w.Running())
		}
		desk.Cancel("cancelled")
		desk.Take("taken")
		time.Sleep(time.Minute)
		want(t, desk, "cancelled", false, labmesh.CauseCancelled)
		want(t, desk, "late", false, labmesh.CauseTimeout)
		want(t, desk, "waiting", true, "")
		want(t, desk, "panics", false, labmesh.CauseSpawn)
		if _, ended := desk.Outcome("taken"); ended || w.Running() != 0 {
			t.Errorf("the attempt taken away was reported, or %d still run", w.Running())
		}
		if late := desk.Late(); len(late) > 0 {
			t.Errorf("declined: %v", late)
		}
		stop()
	})
}

func TestReportsAreRepeatedUntilTaken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		down := time.Now().Add(time.Minute)
		tries := 0
		desk := &exectest.Desk{Fail: func([]labmesh.Command) error {
			if tries++; time.Now().Before(down) {
				return errors.New("no leader")
			}
			return nil
		}}
		desk.Put(task("a", time.Second), task("b", time.Second))
		_, stop := start(t, dir, 2, desk, &slow{})
		time.Sleep(2 * time.Minute)
		want(t, desk, "a", true, "")
		want(t, desk, "b", true, "")
		if desk.Calls() > 3 {
			t.Errorf("%d calls for what had piled up", desk.Calls())
		}
		if tries > 100 {
			t.Errorf("%d tries in a minute", tries)
		}
		stop()
	})
}

func TestRepeatsAtOnceWhenTheDeskChanges(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		down := time.Now().Add(time.Minute + 100*time.Millisecond)
		desk := &exectest.Desk{Fail: func([]labmesh.Command) error {
			if time.Now().Before(down) {
				return errors.New("no leader")
			}
			return nil
		}}
		desk.Put(task("a", 0))
		_, stop := start(t, dir, 1, desk, &slow{})
		time.Sleep(time.Until(down))
		desk.Put() // a new leader is known
		time.Sleep(10 * time.Millisecond)
		want(t, desk, "a", true, "")
		stop()
	})
}

func TestDeclinedStartStopsTheAttempt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var once sync.Once
		desk := &exectest.Desk{}
		desk.Fail = func([]labmesh.Command) error {
			once.Do(func() { desk.Cancel("a") }) // overtakes the report of the start
			return nil
		}
		desk.Put(task("a", time.Hour))
		w, stop := start(t, dir, 1, desk, &slow{})
		time.Sleep(time.Minute)
		want(t, desk, "a", false, labmesh.CauseCancelled)
		if w.Running() != 0 {
			t.Error("it still runs")
		}
		stop()
	})
}

func TestRestartReportsWhatItDoesNotRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		blocked := true
		desk, r := &exectest.Desk{}, &slow{}
		desk.Fail = func([]labmesh.Command) error {
			if blocked {
				return errors.New("cut off")
			}
			return nil
		}
		running := task("running", time.Hour)
		running.Phase = labmesh.Running
		desk.Put(task("begun", time.Hour))
		_, stop := start(t, dir, 3, desk, r)
		time.Sleep(time.Second)
		stop() // its reports are lost
		blocked = false
		desk.Put(running)
		_, stop = start(t, dir, 3, desk, r)
		synctest.Wait()
		want(t, desk, "running", false, labmesh.CauseWorkerLost)
		want(t, desk, "begun", false, labmesh.CauseWorkerLost)
		if r.starts() != 1 {
			t.Errorf("attempts were started %d times", r.starts())
		}
		stop()
	})
}

func TestShutdownReportsTheEndWithinItsTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		desk := &exectest.Desk{}
		desk.Put(task("a", time.Hour), task("waiting", time.Hour))
		_, stop := start(t, dir, 1, desk, &slow{})
		time.Sleep(time.Minute)
		stop()
		want(t, desk, "a", false, labmesh.CauseWorkerLost)
		want(t, desk, "waiting", false, labmesh.CauseOffer)

		desk.Put(task("b", time.Hour))
		desk.Fail = func([]labmesh.Command) error { return errors.New("no leader, and never again") }
		_, stop = start(t, dir, 1, desk, &slow{})
		time.Sleep(time.Minute)
		began := time.Now()
		stop()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the stop took %v", took)
		}
	})
}

func TestLogsFollowAndAreKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		desk := &exectest.Desk{}
		desk.Put(task("a", time.Minute))
		w, stop := start(t, dir, 1, desk, &slow{})
		defer func() { stop() }()
		synctest.Wait()
		began := time.Now()
		r, err := w.Logs(t.Context(), "a", 0, output.Query{Stream: output.Stdout, Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		r.Close()
		if string(data) != "hello world" || err != nil || time.Since(began) != time.Minute {
			t.Errorf("followed %q, %v, for %v", data, err, time.Since(began))
		}
		stop()
		w, stop = start(t, dir, 1, desk, &slow{})
		if r, err = w.Logs(t.Context(), "a", 1, output.Query{Offset: 6}); err != nil {
			t.Fatal(err)
		}
		data, err = io.ReadAll(r)
		r.Close()
		if string(data) != "world" || err != nil {
			t.Errorf("kept %q, %v", data, err)
		}
		if _, err := w.Logs(t.Context(), "a", 2, output.Query{}); labmesh.ReasonOf(err) != labmesh.NotFound || !strings.Contains(err.Error(), "attempt 2 of a") {
			t.Errorf("an unknown attempt: %v", err)
		}
	})
}
