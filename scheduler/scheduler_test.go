package scheduler_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"labmesh"
	"labmesh/scheduler"
	"labmesh/state"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// mesh is a state machine with a leader's hands: it applies what is planned.
type mesh struct {
	c     *state.Cluster
	index uint64
	now   time.Time
	led   time.Time
	heard map[labmesh.WorkerID]scheduler.Heard
}

func newMesh() *mesh {
	return &mesh{c: state.New(), now: epoch, led: epoch, heard: map[labmesh.WorkerID]scheduler.Heard{}}
}

func (m *mesh) input() scheduler.Input {
	return scheduler.Input{View: m.c.View(), Now: m.now, Heard: m.heard, Led: m.led}
}

func (m *mesh) apply(cmds ...labmesh.Command) []labmesh.Answer {
	m.index++
	_, answers := m.c.Apply(m.index, labmesh.Entry{At: m.now, Commands: cmds})
	return answers
}

func (m *mesh) join(w labmesh.Worker) {
	if w.Kinds == nil {
		w.Kinds = []labmesh.Kind{labmesh.Custom}
	}
	m.apply(labmesh.PutWorker{Worker: w})
	m.hear(w.ID)
}

func (m *mesh) hear(id labmesh.WorkerID) {
	m.heard[id] = scheduler.Heard{Expires: m.now.Add(scheduler.Lease), Accepts: true}
}

func (m *mesh) submit(id labmesh.TaskID, s labmesh.Spec) {
	s.Kind = labmesh.Custom
	m.apply(labmesh.SubmitTask{ID: id, Spec: s})
}

func placed(cmds []labmesh.Command) (out []string) {
	for _, c := range cmds {
		p := c.(labmesh.PlaceTask)
		out = append(out, fmt.Sprintf("%s@%s", p.ID, p.Worker))
	}
	return out
}

func TestHigherPriorityGoesFirstThenTheOldest(t *testing.T) {
	t.Parallel()
	m := newMesh()
	m.join(labmesh.Worker{ID: "w", Slots: 3})
	m.submit("old", labmesh.Spec{Priority: 1})
	m.submit("young", labmesh.Spec{Priority: 1, Requirements: labmesh.Requirements{CPUs: 1}})
	m.submit("low", labmesh.Spec{Priority: 0})
	m.submit("urgent", labmesh.Spec{Priority: 9})
	got := fmt.Sprint(placed(scheduler.Plan(m.input())))
	if want := "[urgent@w old@w young@w]"; got != want {
		t.Errorf("placed %s, want %s", got, want)
	}
}

func TestTasksSpreadOverTheEmptiestWorkers(t *testing.T) {
	t.Parallel()
	m := newMesh()
	gpu := labmesh.Capabilities{GPU: &labmesh.GPU{Count: 1}}
	for _, id := range []labmesh.WorkerID{"a", "b", "c"} {
		m.join(labmesh.Worker{ID: id, Slots: 2, Capabilities: gpu})
	}
	for i := range 4 {
		m.submit(labmesh.TaskID(fmt.Sprint("g", i)), labmesh.Spec{Requirements: labmesh.Requirements{GPUs: 1}})
	}
	if got, want := fmt.Sprint(placed(scheduler.Plan(m.input()))), "[g0@a g1@b g2@c]"; got != want {
		t.Errorf("GPU tasks placed %s, want %s", got, want)
	}
}

// TestTheFastestOfTheEmptiest: speed decides between workers that are equally full, and only then.
func TestTheFastestOfTheEmptiest(t *testing.T) {
	t.Parallel()
	m := newMesh()
	for id, speed := range map[labmesh.WorkerID]float64{"a": 0.5, "b": 0, "c": 2} {
		w := labmesh.Worker{ID: id, Slots: 2}
		if speed > 0 {
			w.Capabilities.Calibration = &labmesh.Calibration{Speed: speed}
		}
		m.join(w)
	}
	for i := range 5 {
		m.submit(labmesh.TaskID(fmt.Sprint("t", i)), labmesh.Spec{})
	}
	if got, want := fmt.Sprint(placed(scheduler.Plan(m.input()))), "[t0@c t1@b t2@a t3@c t4@b]"; got != want {
		t.Errorf("placed %s, want %s", got, want)
	}
}

func TestNothingIsPlacedOnASilentOrUnwillingWorker(t *testing.T) {
	t.Parallel()
	m := newMesh()
	m.join(labmesh.Worker{ID: "silent", Slots: 2})
	delete(m.heard, "silent")
	m.submit("first", labmesh.Spec{})
	if got := fmt.Sprint(placed(scheduler.Plan(m.input()))); got != "[first@silent]" {
		t.Errorf("placed %s; a worker that registered just now takes work", got)
	}
	m.apply(labmesh.CancelTask{ID: "first"})
	m.now = m.now.Add(4 * time.Second)
	m.join(labmesh.Worker{ID: "unwilling", Slots: 2})
	m.heard["unwilling"] = scheduler.Heard{Expires: m.now.Add(time.Hour)}
	m.join(labmesh.Worker{ID: "expired", Slots: 2})
	m.heard["expired"] = scheduler.Heard{Expires: m.now.Add(-1), Accepts: true}
	m.submit("t", labmesh.Spec{})
	if got := scheduler.Plan(m.input()); len(got) > 0 {
		t.Errorf("placed %v", got)
	}
}

func TestABigTaskDoesNotStarveBehindSmallOnes(t *testing.T) {
	t.Parallel()
	m := newMesh()
	m.join(labmesh.Worker{ID: "w", Slots: 2})
	m.submit("running", labmesh.Spec{})
	m.apply(scheduler.Plan(m.input())...)
	m.submit("big", labmesh.Spec{Requirements: labmesh.Requirements{CPUs: 2}})
	m.submit("small", labmesh.Spec{})
	m.now = m.now.Add(11 * time.Second)
	m.hear("w")
	if got := placed(scheduler.Plan(m.input())); len(got) > 0 {
		t.Errorf("%v was placed though big has waited long", got)
	}
	m.apply(labmesh.StartTask{ID: "running", Attempt: 1, Worker: "w"}, labmesh.FinishTask{ID: "running", Attempt: 1, Worker: "w", Outcome: labmesh.Outcome{OK: true, Seconds: 10}})
	if got := fmt.Sprint(placed(scheduler.Plan(m.input()))); got != "[big@w]" {
		t.Errorf("placed %s, want big", got)
	}
}

func TestShortTasksWaitOnTheWorkerItself(t *testing.T) {
	t.Parallel()
	m := newMesh()
	m.join(labmesh.Worker{ID: "w", Slots: 1})
	m.submit("first", labmesh.Spec{})
	m.apply(scheduler.Plan(m.input())...)
	for i := range 2 * state.AheadMax {
		m.submit(labmesh.TaskID(fmt.Sprint("t", i)), labmesh.Spec{})
	}
	m.submit("once", labmesh.Spec{MaxAttempts: 1, Priority: 9, Requirements: labmesh.Requirements{Tags: map[string]string{}}})
	if got := scheduler.Plan(m.input()); len(got) > 0 {
		t.Errorf("%v was placed on a worker of which nothing is known", placed(got))
	}
	m.apply(labmesh.StartTask{ID: "first", Attempt: 1, Worker: "w"}, labmesh.FinishTask{ID: "first", Attempt: 1, Worker: "w", Outcome: labmesh.Outcome{OK: true, Seconds: 0.002}})
	plan := scheduler.Plan(m.input())
	if len(plan) != 1+state.AheadMax || plan[0].(labmesh.PlaceTask).ID != "once" || plan[0].(labmesh.PlaceTask).Ahead || !plan[1].(labmesh.PlaceTask).Ahead {
		t.Fatalf("placed %v", plan)
	}
	m.apply(plan...)
	if u := m.c.View().Used("w"); u.Slots != 1 || u.Ahead != state.AheadMax {
		t.Errorf("the worker holds %+v", u)
	}
	// The task in the slot is long after all: what waits goes back and counts it as nothing.
	m.apply(labmesh.StartTask{ID: "once", Attempt: 1, Worker: "w"})
	m.now = m.now.Add(state.AheadTimeout)
	m.hear("w")
	for _, a := range m.apply(scheduler.Tend(m.input())...) {
		if a.Refused != nil {
			t.Error(a.Refused)
		}
	}
	if got := scheduler.Plan(m.input()); len(got) > 0 {
		t.Errorf("%v was placed behind a task that takes long", placed(got))
	}
	task, _ := m.c.View().Task("t0")
	if task.Phase != labmesh.Pending || task.Lost != 0 || task.Failed != 0 || len(task.History) != 0 || !task.NotBefore.IsZero() {
		t.Errorf("a task that waited in the wrong place is %+v", task)
	}
}

func TestANewLeaderGivesEveryWorkerALeaseToBeHeard(t *testing.T) {
	t.Parallel()
	m := newMesh()
	m.join(labmesh.Worker{ID: "w", Slots: 1})
	clear(m.heard)
	m.now = m.now.Add(time.Hour)
	m.led = m.now
	for after, want := range map[time.Duration]int{0: 0, scheduler.Lease: 0, scheduler.Lease + time.Second: 1} {
		in := m.input()
		in.Now = m.led.Add(after)
		if got := scheduler.Tend(in); len(got) != want {
			t.Errorf("%s after the election: %v", after, got)
		}
	}
	m.hear("w")
	in := m.input()
	in.Now = m.now.Add(scheduler.Lease - 1)
	if got := scheduler.Tend(in); len(got) != 0 {
		t.Errorf("a worker that was heard of is lost: %v", got)
	}
}

func TestALightWorkerHasTimeToAttachElsewhere(t *testing.T) {
	t.Parallel()
	m := newMesh()
	m.join(labmesh.Worker{ID: "l", Node: "n", Light: true, Slots: 1})
	m.now = m.now.Add(scheduler.LightGrace) // its node was heard of for the last time long ago
	m.submit("t", labmesh.Spec{})
	if p := scheduler.Plan(m.input()); len(p) != 0 {
		t.Fatalf("placed %v while nobody knows where it is", placed(p))
	}
	if todo := scheduler.Tend(m.input()); len(todo) != 0 {
		t.Fatalf("too early: %v", todo)
	}
	m.now = m.now.Add(time.Second)
	if todo := scheduler.Tend(m.input()); len(todo) != 1 || todo[0].(labmesh.LoseWorker).ID != "l" {
		t.Fatalf("got %v", todo)
	}
}

func TestTendActsOnWhatIsDue(t *testing.T) {
	t.Parallel()
	m := newMesh()
	m.submit("queued", labmesh.Spec{QueueTimeoutSeconds: 5})
	m.join(labmesh.Worker{ID: "w", Slots: 4})
	if d := scheduler.NextTend(m.input(), time.Minute); d != 5*time.Second {
		t.Errorf("next in %s, want 5s", d)
	}
	m.now = m.now.Add(5 * time.Second)
	m.hear("w")
	got := scheduler.Tend(m.input())
	want := labmesh.ExpireTask{ID: "queued", Cause: labmesh.CauseQueue}
	if len(got) != 1 || got[0] != want {
		t.Fatalf("got %v, want %v", got, want)
	}
	for _, a := range m.apply(got...) {
		if a.Refused != nil {
			t.Error(a.Refused)
		}
	}
	if task, _ := m.c.View().Task("queued"); task.Phase != labmesh.TimedOut {
		t.Errorf("it is %s", task.Phase)
	}
}

func drawNeeds(r *rapid.T) labmesh.Requirements {
	return labmesh.Requirements{
		Hardware:  rapid.SampledFrom([][]string{nil, {"cpu"}, {"cuda"}}).Draw(r, "hardware"),
		CPUs:      rapid.IntRange(0, 3).Draw(r, "cpus"),
		GPUs:      rapid.IntRange(0, 1).Draw(r, "gpus"),
		Exclusive: rapid.IntRange(0, 5).Draw(r, "exclusive") == 0,
	}
}

// TestAPlanOnAFreshViewIsNeverRefused, and fills no worker over its size.
func TestAPlanOnAFreshViewIsNeverRefused(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		m := newMesh()
		for i := range rapid.IntRange(1, 5).Draw(r, "workers") {
			w := labmesh.Worker{ID: labmesh.WorkerID(fmt.Sprint("w", i)), Slots: rapid.IntRange(0, 4).Draw(r, "slots")}
			w.Capabilities.Hardware = []string{"cpu"}
			if rapid.Bool().Draw(r, "gpu") {
				w.Capabilities.Hardware = append(w.Capabilities.Hardware, "cuda")
				w.Capabilities.GPU = &labmesh.GPU{Count: rapid.IntRange(1, 2).Draw(r, "gpus")}
			}
			m.join(w)
		}
		n := 0
		for range rapid.IntRange(1, 8).Draw(r, "rounds") {
			for range rapid.IntRange(0, 10).Draw(r, "tasks") {
				n++
				m.submit(labmesh.TaskID(fmt.Sprint("t", n)), labmesh.Spec{Priority: rapid.IntRange(0, 2).Draw(r, "priority"), Requirements: drawNeeds(r)})
			}
			m.now = m.now.Add(time.Duration(rapid.IntRange(0, 15).Draw(r, "seconds")) * time.Second)
			for w := range m.c.View().Workers() {
				m.hear(w.ID)
			}
			for _, decide := range []func(scheduler.Input) []labmesh.Command{scheduler.Tend, scheduler.Plan} {
				plan := decide(m.input())
				for i, a := range m.apply(plan...) {
					if a.Refused != nil {
						r.Fatalf("%#v is refused: %v", plan[i], a.Refused)
					}
				}
			}
			if again := scheduler.Plan(m.input()); len(again) > 0 {
				r.Fatalf("one pass left room for %v", again)
			}
			for w := range m.c.View().Workers() {
				u := m.c.View().Used(w.ID)
				if u.Ahead > state.AheadMax {
					r.Fatalf("%d tasks wait on %s", u.Ahead, w.ID)
				}
				if u.Slots > w.Slots || u.GPUs > w.Capabilities.GPUCount() {
					r.Fatalf("%s of %d slots holds %+v", w.ID, w.Slots, u)
				}
				for t := range m.c.View().Held(w.ID) {
					if !t.Ahead && rapid.Bool().Draw(r, "ends") {
						took := float64(rapid.IntRange(0, 1).Draw(r, "took"))
						m.apply(labmesh.FinishTask{ID: t.ID, Attempt: t.Attempt, Worker: w.ID, Outcome: labmesh.Outcome{OK: true, Seconds: took}})
					}
				}
			}
		}
	})
}

// TestOnceAFittingWorkerIsThereEveryTaskEnds runs meshes whose workers fail,
// fall silent and come back, until nothing is left.
func TestOnceAFittingWorkerIsThereEveryTaskEnds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		m := newMesh()
		n := rapid.IntRange(1, 20).Draw(r, "tasks")
		for i := range n {
			m.submit(labmesh.TaskID(fmt.Sprint("t", i)), labmesh.Spec{Requirements: drawNeeds(r), TimeoutSeconds: float64(rapid.IntRange(0, 30).Draw(r, "timeout")),
				Retry: &labmesh.RetryPolicy{MaxRetries: rapid.IntRange(0, 2).Draw(r, "retries"), BackoffSeconds: 1}})
		}
		fit := labmesh.Worker{ID: "fit", Slots: 4, Capabilities: labmesh.Capabilities{Hardware: []string{"cpu", "cuda"}, GPU: &labmesh.GPU{Count: 1}}}
		for round := 0; ; round++ {
			if round > 2000 {
				r.Fatalf("after %s there are still %v", m.now.Sub(epoch), m.c.View().Counts())
			}
			m.now = m.now.Add(time.Second)
			calm := round > 100 // trouble ends some day
			if w, ok := m.c.View().Worker("fit"); !ok || w.Status == labmesh.WorkerOffline {
				m.join(fit)
			}
			if calm || rapid.IntRange(0, 9).Draw(r, "silent") > 0 {
				m.hear("fit")
			}
			for _, a := range m.apply(append(scheduler.Tend(m.input()), scheduler.Plan(m.input())...)...) {
				if a.Refused != nil {
					r.Fatalf("refused: %v", a.Refused)
				}
			}
			live := 0
			for t := range m.c.View().Tasks(0) {
				if !t.Phase.Final() {
					live++
				}
				if !t.Phase.Held() {
					continue
				}
				o := labmesh.Outcome{OK: true, Seconds: float64(round)}
				if !calm {
					switch rapid.IntRange(0, 5).Draw(r, "what") {
					case 0:
						continue // it runs on, or its worker says nothing
					case 1:
						o = labmesh.Outcome{Cause: labmesh.CauseExit, Error: "exit 1"}
					case 2:
						m.apply(labmesh.CancelTask{ID: t.ID})
						continue
					case 3:
						o = labmesh.Outcome{Cause: labmesh.CauseSpawn, Error: "no process"}
					}
				}
				m.apply(labmesh.FinishTask{ID: t.ID, Attempt: t.Attempt, Worker: t.Worker, Outcome: o})
			}
			if live == 0 {
				return
			}
		}
	})
}

func filled(tasks, classes, workers, slots int) *mesh {
	m := newMesh()
	for i := range workers {
		m.join(labmesh.Worker{ID: labmesh.WorkerID(fmt.Sprintf("w%04d", i)), Slots: slots, Capabilities: labmesh.Capabilities{
			Hardware: []string{"cpu", "avx2"}, Memory: labmesh.Memory{TotalGB: 64}}})
	}
	for i := range tasks {
		m.submit(labmesh.TaskID(fmt.Sprintf("t%06d", i)), labmesh.Spec{Priority: i % 3, Requirements: labmesh.Requirements{
			Hardware: []string{"cpu"}, MinMemoryGB: float64(1 + i%classes)}})
	}
	return m
}

// BenchmarkPlanFullPass is the whole pass: 100,000 pending tasks in 50 classes
// on 1,000 workers. To hold: ≤ 50 ms.
func BenchmarkPlanFullPass(b *testing.B) {
	in := filled(100_000, 50, 1_000, 4).input()
	b.ReportAllocs()
	for b.Loop() {
		if n := len(scheduler.Plan(in)); n != 4_000 {
			b.Fatalf("%d placed", n)
		}
	}
}

// BenchmarkPlanOneFreedSlot is the plan after one task of a full mesh ended. To hold: ≤ 100 µs.
func BenchmarkPlanOneFreedSlot(b *testing.B) {
	m := filled(100_000, 50, 1_000, 4)
	m.apply(scheduler.Plan(m.input())...)
	for t := range m.c.View().Held("w0500") {
		m.apply(labmesh.FinishTask{ID: t.ID, Attempt: 1, Worker: "w0500", Outcome: labmesh.Outcome{OK: true, Seconds: 10}})
		break
	}
	in := m.input()
	b.ReportAllocs()
	for b.Loop() {
		if n := len(scheduler.Plan(in)); n != 1 {
			b.Fatalf("%d placed", n)
		}
	}
}

// BenchmarkPlanByDepth: what is pending must not slow a placement.
func BenchmarkPlanByDepth(b *testing.B) {
	for _, n := range []int{1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("pending=%d", n), func(b *testing.B) {
			in := filled(n, 1, 3, 2).input()
			for b.Loop() {
				if got := len(scheduler.Plan(in)); got != 6 {
					b.Fatalf("%d placed", got)
				}
			}
		})
	}
}
