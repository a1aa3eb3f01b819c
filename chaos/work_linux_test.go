package chaos_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"time"

	"labmesh/chaos"
)

// perform runs a task's program as a worker would.
func perform(t *testing.T, w *chaos.Work, d time.Duration, env ...string) {
	t.Helper()
	var config struct{ Name string }
	if err := json.Unmarshal(w.Task(d).Config, &config); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", config.Name)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestTheDiaryShowsWhatRanTwiceAtOnce(t *testing.T) {
	t.Parallel()
	w := diary(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		perform(t, w, 600*time.Millisecond, "LABMESH_TASK_ID=t1", "LABMESH_ATTEMPT=1", "LABMESH_WORKER_ID=w1")
	}()
	perform(t, w, 400*time.Millisecond, "LABMESH_TASK_ID=t1", "LABMESH_ATTEMPT=2", "LABMESH_WORKER_ID=w2")
	<-done
	perform(t, w, 0, "LABMESH_TASK_ID=t2", "LABMESH_ATTEMPT=1", "LABMESH_WORKER_ID=w1")
	perform(t, w, 0, "LABMESH_TASK_ID=t2", "LABMESH_ATTEMPT=2", "LABMESH_WORKER_ID=w1")
	runs, err := w.Runs()
	if err != nil || len(runs) != 4 {
		t.Fatalf("%v, %v", runs, err)
	}
	for _, r := range runs {
		if !r.Ended || r.PID == 0 || r.Boot == "" || r.Start == 0 {
			t.Errorf("%+v", r)
		}
	}
	over := chaos.Overlaps(runs)
	if len(over) != 1 || over[0].First.Task != "t1" || over[0].For < 200*time.Millisecond {
		t.Errorf("found %v", over)
	}
}

func TestASeedIsAPlan(t *testing.T) {
	t.Parallel()
	one, same, other := chaos.NewPlan(7, 3, time.Minute, true), chaos.NewPlan(7, 3, time.Minute, true), chaos.NewPlan(8, 3, time.Minute, true)
	if one.String() != same.String() || one.String() == other.String() {
		t.Errorf("%s\n%s\n%s", one, same, other)
	}
}
