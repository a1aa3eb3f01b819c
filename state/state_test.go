package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"labmesh"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// mesh draws random commands that make some sense, and many that do not.
type mesh struct {
	c     *Cluster
	index uint64
	at    time.Time
}

var (
	taskIDs   = rapid.SampledFrom([]labmesh.TaskID{"t1", "t2", "t3", "t4", "t5", "t6"})
	workerIDs = rapid.SampledFrom([]labmesh.WorkerID{"w1", "w2", "w3"})
	attempts  = rapid.IntRange(0, 4)
	causes    = rapid.SampledFrom([]labmesh.Cause{labmesh.CauseExit, labmesh.CauseTimeout, labmesh.CauseWorkerLost, labmesh.CauseSpawn, labmesh.CauseCancelled})
)

func worker(id labmesh.WorkerID) labmesh.Worker {
	return labmesh.Worker{ID: id, Node: labmesh.NodeID("n-" + id), Slots: 2, Kinds: []labmesh.Kind{labmesh.Custom},
		Capabilities: labmesh.Capabilities{Hardware: []string{"cpu"}, Memory: labmesh.Memory{TotalGB: 8}}}
}

func drawSpec(r *rapid.T) labmesh.Spec {
	s := labmesh.Spec{Kind: labmesh.Custom, Priority: rapid.IntRange(0, 2).Draw(r, "priority")}
	s.Requirements.CPUs = rapid.IntRange(0, 3).Draw(r, "cpus")
	s.MaxAttempts = rapid.IntRange(0, 3).Draw(r, "max")
	s.TimeoutSeconds = float64(rapid.IntRange(0, 2).Draw(r, "timeout"))
	s.QueueTimeoutSeconds = float64(rapid.IntRange(0, 90).Draw(r, "queue"))
	if rapid.Bool().Draw(r, "policy") {
		s.Retry = &labmesh.RetryPolicy{MaxRetries: rapid.IntRange(0, 2).Draw(r, "retries"), BackoffSeconds: float64(rapid.IntRange(0, 3).Draw(r, "backoff"))}
	}
	s.DependsOn = rapid.SliceOfN(taskIDs, 0, 2).Draw(r, "depends")
	if rapid.IntRange(0, 2).Draw(r, "alone") > 0 {
		s.DependsOn = nil
	}
	s.OnDisconnect = rapid.SampledFrom([]string{"", "", "keep", "30s"}).Draw(r, "disconnect")
	s.IdempotencyKey = rapid.SampledFrom([]string{"", "", "k1", "k2"}).Draw(r, "key")
	return s
}

func (m *mesh) draw(r *rapid.T) labmesh.Command {
	id := taskIDs.Draw(r, "task")
	// Most words are about the attempt that is really held: nonsense alone gets nowhere.
	attempt, w := attempts.Draw(r, "attempt"), workerIDs.Draw(r, "worker")
	if t, ok := m.c.v.Task(id); ok && rapid.IntRange(0, 4).Draw(r, "true") > 0 {
		attempt = t.Attempt
		if t.Worker != "" && t.Phase != labmesh.Pending {
			w = t.Worker
		}
	}
	switch rapid.IntRange(0, 13).Draw(r, "command") {
	case 0, 1:
		return labmesh.SubmitTask{ID: id, Spec: drawSpec(r), Project: rapid.SampledFrom([]string{"", "", "p"}).Draw(r, "project")}
	case 2, 3:
		return labmesh.PlaceTask{ID: id, Attempt: attempt + 1, Worker: w, Ahead: rapid.Bool().Draw(r, "ahead")}
	case 4, 5:
		return labmesh.StartTask{ID: id, Attempt: attempt, Worker: w}
	case 6:
		return labmesh.FinishTask{ID: id, Attempt: attempt, Worker: w, Outcome: labmesh.Outcome{OK: true, Result: json.RawMessage(`1`)}}
	case 7:
		return labmesh.FinishTask{ID: id, Attempt: attempt, Worker: w, Outcome: labmesh.Outcome{Cause: causes.Draw(r, "cause"), Error: "x"}}
	case 8:
		return labmesh.CancelTask{ID: id}
	case 9:
		cause := labmesh.CauseTimeout
		if t, ok := m.c.v.Task(id); ok {
			cause = Overdue(t)
		}
		return labmesh.ExpireTask{ID: id, Attempt: attempt, Cause: cause}
	case 10:
		return labmesh.LoseWorker{ID: w, Reason: "silent", Stopped: rapid.IntRange(0, 3).Draw(r, "stopped") == 0}
	case 12:
		return labmesh.RaiseLevel{Level: rapid.IntRange(-1, labmesh.Feature).Draw(r, "level")}
	case 11:
		return labmesh.HoldWorker{ID: w, Status: rapid.SampledFrom([]labmesh.WorkerStatus{"", labmesh.WorkerDraining, labmesh.WorkerQuarantined}).Draw(r, "hold"), Reason: "x"}
	}
	return labmesh.PutWorker{Worker: worker(w)}
}

func (m *mesh) apply(cmds ...labmesh.Command) ([]labmesh.Event, []labmesh.Answer) {
	m.index++
	return m.c.Apply(m.index, labmesh.Entry{At: m.at, Commands: cmds})
}

func newMesh() *mesh {
	m := &mesh{c: New(), at: epoch}
	m.apply(labmesh.PutWorker{Worker: worker("w1")}, labmesh.PutWorker{Worker: worker("w2")}, labmesh.PutWorker{Worker: worker("w3")})
	return m
}

// TestWhateverArrivesTheInvariantsHold applies random commands, each twice, and
// looks at everything that must always be so.
func TestWhateverArrivesTheInvariantsHold(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		m, twin := newMesh(), newMesh()
		verdicts := map[labmesh.TaskID]labmesh.Task{}
		accepted := map[labmesh.TaskID]int{} // good outcomes on record
		for range rapid.IntRange(1, 60).Draw(r, "entries") {
			m.at = m.at.Add(time.Duration(rapid.IntRange(-1, 40).Draw(r, "seconds")) * time.Second)
			twin.at = m.at
			cmd := m.draw(r)
			events, _ := m.apply(cmd)
			for _, e := range events {
				if e.Type == labmesh.AttemptEnded && e.Attempt.Status == "completed" {
					accepted[e.Attempt.Task]++
				}
			}
			once := phases(m.c)
			_, _ = m.apply(cmd)
			if got := phases(m.c); !reflect.DeepEqual(got, once) {
				r.Fatalf("%#v sent twice changed tasks from %v to %v", cmd, once, got)
			}
			checkTerminal(r, m.c, verdicts)
			checkIndexes(r, m.c)
			twin.apply(cmd)
			twin.apply(cmd)
		}
		for id, n := range accepted {
			if n > 1 {
				r.Fatalf("%s was completed %d times", id, n)
			}
		}
		if a, b := encode(r, m.c), encode(r, twin.c); !bytes.Equal(a, b) {
			r.Fatalf("two replicas of the same log differ:\n%s\n%s", a, b)
		}
		checkSnapshot(r, m)
	})
}

func phases(c *Cluster) map[labmesh.TaskID]string {
	out := map[labmesh.TaskID]string{}
	for t := range c.v.Tasks(0) {
		out[t.ID] = fmt.Sprint(t.Phase, t.Attempt, t.Worker, t.Failed, t.Lost, len(t.History))
	}
	return out
}

// checkTerminal: terminal is terminal.
func checkTerminal(r *rapid.T, c *Cluster, verdicts map[labmesh.TaskID]labmesh.Task) {
	for t := range c.v.Tasks(0) {
		if before, ok := verdicts[t.ID]; ok && !reflect.DeepEqual(before, *t) {
			r.Fatalf("%s had its verdict and changed from %+v to %+v", t.ID, before, *t)
		}
		if t.Phase.Final() {
			verdicts[t.ID] = *t
		}
	}
}

// checkIndexes rebuilds from the tasks alone what the state keeps about them.
func checkIndexes(r *rapid.T, c *Cluster) {
	v := c.v
	used := map[labmesh.WorkerID]Used{}
	counts := Counts{}
	pending, held, delayed, deadlines, edges := 0, 0, 0, 0, 0
	for t := range v.Tasks(0) {
		counts[t.Phase]++
		if !t.Unknown.IsZero() && !t.Phase.Held() {
			r.Fatalf("%s is %s, and it is unknown whether it runs", t.ID, t.Phase)
		}
		if !deadline(t).IsZero() && !t.Phase.Final() {
			deadlines++
		}
		switch {
		case t.Phase.Held():
			held++
			u := used[t.Worker]
			u.Tasks++
			if t.Ahead {
				u.Ahead++
			} else {
				u.Slots += t.Slots
			}
			used[t.Worker] = u
		case t.Waits > 0:
			on := map[labmesh.TaskID]bool{}
			for _, id := range t.Spec.DependsOn {
				if d, ok := v.Task(id); ok && !d.Phase.Final() {
					on[id] = true
				}
			}
			if len(on) != t.Waits || t.Phase != labmesh.Pending {
				r.Fatalf("%s is %s and waits for %d tasks; %v have not ended", t.ID, t.Phase, t.Waits, on)
			}
			edges += t.Waits
		case t.Phase == labmesh.Pending && !t.NotBefore.IsZero():
			delayed++
		case t.Phase == labmesh.Pending:
			pending++
		}
	}
	for p, n := range v.Counts() {
		if n != counts[p] {
			r.Fatalf("%d %s tasks are counted, there are %d", n, p, counts[p])
		}
	}
	if v.queue.Len() != pending || v.held.Len() != held || v.delayed.Len() != delayed || v.deadlines.Len() != deadlines {
		r.Fatalf("queue %d held %d delayed %d deadlines %d; want %d %d %d %d", v.queue.Len(), v.held.Len(), v.delayed.Len(), v.deadlines.Len(), pending, held, delayed, deadlines)
	}
	if v.waits.Len() != edges {
		r.Fatalf("%d edges, want %d", v.waits.Len(), edges)
	}
	waiting := 0
	for c := range v.Classes() {
		n := len(v.Queue(c.ID, nil, 100, nil))
		if n != c.Waiting {
			r.Fatalf("class %s says %d wait, %d do", c.ID, c.Waiting, n)
		}
		waiting += n
	}
	if waiting != pending {
		r.Fatalf("%d wait in classes, %d are pending", waiting, pending)
	}
	for w := range v.Workers() {
		u := v.Used(w.ID)
		if u != used[w.ID] || u.Slots > w.Slots {
			r.Fatalf("worker %s of %d slots: used %+v, its tasks say %+v", w.ID, w.Slots, u, used[w.ID])
		}
		for t := range v.Held(w.ID) {
			offline := w.Status == labmesh.WorkerOffline
			if offline == t.Unknown.IsZero() || offline && t.Spec.Outlasts() == 0 {
				r.Fatalf("worker %s is %s and holds %s, unknown since %v, with on_disconnect %q", w.ID, w.Status, t.ID, t.Unknown, t.Spec.OnDisconnect)
			}
		}
		if _, free := v.free.Get(w.ID); free != (w.Status == labmesh.WorkerActive && u.Slots+u.Ahead < w.Slots) {
			r.Fatalf("worker %s: free is %v", w.ID, free)
		}
	}
}

func encode(r interface{ Fatal(...any) }, c *Cluster) []byte {
	var b bytes.Buffer
	if err := c.View().Encode(&b); err != nil {
		r.Fatal(err)
	}
	return b.Bytes()
}

// checkSnapshot: what a snapshot gives back goes on just as the original does.
func checkSnapshot(r *rapid.T, m *mesh) {
	data := encode(r, m.c)
	got, err := Decode(bytes.NewReader(data))
	if err != nil {
		r.Fatal(err)
	}
	if again := encode(r, got); !bytes.Equal(data, again) {
		r.Fatalf("a snapshot changed on the way:\n%s\n%s", data, again)
	}
	checkIndexes(r, got)
	copied := &mesh{c: got, index: m.index, at: m.at}
	for range 5 {
		cmd := m.draw(r)
		e1, a1 := m.apply(cmd)
		e2, a2 := copied.apply(cmd)
		if !reflect.DeepEqual(a1, a2) || len(e1) != len(e2) {
			r.Fatalf("%#v: the original answers %v, the copy %v", cmd, a1, a2)
		}
	}
	if a, b := encode(r, m.c), encode(r, got); !bytes.Equal(a, b) {
		r.Fatalf("a copy goes on otherwise:\n%s\n%s", a, b)
	}
}

func TestLateWordChangesNothing(t *testing.T) {
	t.Parallel()
	m := newMesh()
	m.apply(labmesh.SubmitTask{ID: "t", Spec: labmesh.Spec{Kind: labmesh.Custom}})
	m.apply(labmesh.PlaceTask{ID: "t", Attempt: 1, Worker: "w1"}, labmesh.StartTask{ID: "t", Attempt: 1, Worker: "w1"})
	m.apply(labmesh.LoseWorker{ID: "w1", Reason: "silent"})
	m.apply(labmesh.PlaceTask{ID: "t", Attempt: 2, Worker: "w2"}, labmesh.StartTask{ID: "t", Attempt: 2, Worker: "w2"})
	before, _ := m.c.v.Task("t")
	events, answers := m.apply(labmesh.FinishTask{ID: "t", Attempt: 1, Worker: "w1", Outcome: labmesh.Outcome{OK: true, Seconds: 3}})
	if answers[0].Refused == nil || answers[0].Refused.Reason != labmesh.Conflict {
		t.Errorf("late word is answered %v", answers[0])
	}
	if len(events) != 1 || events[0].Type != labmesh.AttemptLate || events[0].Attempt.Status != attemptSuperseded {
		t.Errorf("late word is not on record: %v", events)
	}
	if after, _ := m.c.v.Task("t"); after != before {
		t.Errorf("late word changed the task to %+v", after)
	}
	m.apply(labmesh.FinishTask{ID: "t", Attempt: 2, Worker: "w2", Outcome: labmesh.Outcome{OK: true}})
	if done, _ := m.c.v.Task("t"); done.Phase != labmesh.Completed || len(done.History) != 2 || done.History[0].Status != attemptLost {
		t.Errorf("the task ended as %+v", done)
	}
}

func TestRetriesFollowTheirCause(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spec   labmesh.Spec
		causes []labmesh.Cause
		want   labmesh.Phase
	}{
		"no retry by default":                   {labmesh.Spec{}, []labmesh.Cause{labmesh.CauseExit}, labmesh.Failed},
		"a lost worker is nobody's fault":       {labmesh.Spec{}, []labmesh.Cause{labmesh.CauseWorkerLost, labmesh.CauseSpawn}, labmesh.Pending},
		"a timeout is a verdict of its own":     {labmesh.Spec{}, []labmesh.Cause{labmesh.CauseTimeout}, labmesh.TimedOut},
		"two retries":                           {labmesh.Spec{Retry: &labmesh.RetryPolicy{MaxRetries: 2}}, []labmesh.Cause{labmesh.CauseExit, labmesh.CauseTimeout}, labmesh.Pending},
		"two retries and no third":              {labmesh.Spec{Retry: &labmesh.RetryPolicy{MaxRetries: 2}}, []labmesh.Cause{labmesh.CauseExit, labmesh.CauseExit, labmesh.CauseExit}, labmesh.Failed},
		"at most once":                          {labmesh.Spec{MaxAttempts: 1}, []labmesh.Cause{labmesh.CauseWorkerLost}, labmesh.Failed},
		"three attempts, whoever is to blame":   {labmesh.Spec{MaxAttempts: 3}, []labmesh.Cause{labmesh.CauseWorkerLost, labmesh.CauseExit, labmesh.CauseWorkerLost}, labmesh.Failed},
		"infrastructure is given up in the end": {labmesh.Spec{}, slices.Repeat([]labmesh.Cause{labmesh.CauseDisk}, labmesh.InfraRetriesMax+1), labmesh.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMesh()
			c.spec.Kind = labmesh.Custom
			m.apply(labmesh.SubmitTask{ID: "t", Spec: c.spec})
			for i, cause := range c.causes {
				m.at = m.at.Add(time.Hour)
				if _, a := m.apply(labmesh.PlaceTask{ID: "t", Attempt: i + 1, Worker: "w1"}); a[0].Refused != nil {
					t.Fatal(a[0].Refused)
				}
				m.apply(labmesh.FinishTask{ID: "t", Attempt: i + 1, Worker: "w1", Outcome: labmesh.Outcome{Cause: cause, Error: "x"}})
			}
			got, _ := m.c.v.Task("t")
			if got.Phase != c.want || len(got.History) != len(c.causes) {
				t.Errorf("it is %s after %d attempts, want %s after %d", got.Phase, len(got.History), c.want, len(c.causes))
			}
		})
	}
}

func TestBackoffHoldsATaskBack(t *testing.T) {
	t.Parallel()
	m := newMesh()
	m.apply(labmesh.SubmitTask{ID: "t", Spec: labmesh.Spec{Kind: labmesh.Custom, Retry: &labmesh.RetryPolicy{MaxRetries: 3, BackoffSeconds: 10}}})
	m.apply(labmesh.PlaceTask{ID: "t", Attempt: 1, Worker: "w1"})
	m.apply(labmesh.FinishTask{ID: "t", Attempt: 1, Worker: "w1", Outcome: labmesh.Outcome{Cause: labmesh.CauseExit}})
	if _, a := m.apply(labmesh.PlaceTask{ID: "t", Attempt: 2, Worker: "w1"}); a[0].Refused == nil {
		t.Error("it was placed before its wait was over")
	}
	m.at = m.at.Add(10 * time.Second)
	if _, a := m.apply(labmesh.PlaceTask{ID: "t", Attempt: 2, Worker: "w1"}); a[0].Refused != nil {
		t.Error(a[0].Refused)
	}
}

func TestWhatEndedLongAgoLeavesRAM(t *testing.T) {
	t.Parallel()
	m := newMesh()
	const n = rememberMax + 100
	for i := range n {
		id := labmesh.TaskID(fmt.Sprint("t", i))
		m.apply(labmesh.SubmitTask{ID: id, Spec: labmesh.Spec{Kind: labmesh.Custom, IdempotencyKey: fmt.Sprint("k", i)}}, labmesh.CancelTask{ID: id})
	}
	v := m.c.View()
	if v.tasks.Len() != keptMax || v.ids.Len() != rememberMax || v.keys.Len() != rememberMax || v.ended.Len() != rememberMax {
		t.Errorf("RAM holds %d tasks, %d ids, %d keys, %d endings", v.tasks.Len(), v.ids.Len(), v.keys.Len(), v.ended.Len())
	}
	if v.Counts()[labmesh.Cancelled] != n || v.Submitted() != n {
		t.Errorf("counts: %v of %d", v.Counts(), v.Submitted())
	}
	newest := labmesh.TaskID(fmt.Sprint("t", n-1))
	middle := labmesh.TaskID(fmt.Sprint("t", n-2000))
	if _, ok := v.Task(newest); !ok {
		t.Error("the newest is gone")
	}
	if _, ok := v.Task(middle); ok || !v.Known(middle) {
		t.Error("an older one must be known and be in the ledger only")
	}
	if _, a := m.apply(labmesh.SubmitTask{ID: middle}); !a[0].Existed {
		t.Error("a repeated submit of an ended task made a new one")
	}
	big := json.RawMessage(`"` + string(bytes.Repeat([]byte("x"), 60<<10)) + `"`)
	for i := range 300 {
		id := labmesh.TaskID(fmt.Sprint("big", i))
		m.apply(labmesh.SubmitTask{ID: id, Spec: labmesh.Spec{Kind: labmesh.Custom}}, labmesh.PlaceTask{ID: id, Attempt: 1, Worker: "w1"},
			labmesh.FinishTask{ID: id, Attempt: 1, Worker: "w1", Outcome: labmesh.Outcome{OK: true, Result: big}})
	}
	if m.c.v.keptSize > keptBytesMax {
		t.Errorf("%d bytes of results are kept", m.c.v.keptSize)
	}
	checkSnapshotPlain(t, m)
}

func checkSnapshotPlain(t *testing.T, m *mesh) {
	t.Helper()
	data := encode(t, m.c)
	c, err := Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data, encode(t, c)) || c.v.keptSize != m.c.v.keptSize {
		t.Error("a snapshot changed on the way")
	}
	for cut := 0; cut < len(data); cut += len(data)/50 + 1 {
		if _, err := Decode(bytes.NewReader(data[:cut])); err == nil {
			t.Errorf("a snapshot cut off at %d of %d is taken", cut, len(data))
		}
	}
}

func TestAViewNeverChanges(t *testing.T) {
	t.Parallel()
	m := newMesh()
	for i := range 100 {
		m.apply(labmesh.SubmitTask{ID: labmesh.TaskID(fmt.Sprint("t", i)), Spec: labmesh.Spec{Kind: labmesh.Custom}})
	}
	v := m.c.View()
	var before bytes.Buffer
	if err := v.Encode(&before); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		id := labmesh.TaskID(fmt.Sprint("t", i))
		m.apply(labmesh.PlaceTask{ID: id, Attempt: 1, Worker: "w1"}, labmesh.CancelTask{ID: id}, labmesh.LoseWorker{ID: "w1"}, labmesh.PutWorker{Worker: worker("w1")})
	}
	var after bytes.Buffer
	if err := v.Encode(&after); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before.Bytes(), after.Bytes()) {
		t.Error("a view changed after it was taken")
	}
}

func BenchmarkView(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		b.Run(fmt.Sprintf("tasks=%d", n), func(b *testing.B) {
			m := newMesh()
			for i := range n {
				m.apply(labmesh.SubmitTask{ID: labmesh.TaskID(fmt.Sprint("t", i)), Spec: labmesh.Spec{Kind: labmesh.Custom}})
			}
			b.ReportAllocs()
			for b.Loop() {
				_ = m.c.View()
			}
		})
	}
}

func BenchmarkApplyLifeOfATask(b *testing.B) {
	m := newMesh()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		id := labmesh.TaskID(fmt.Sprint("t", i))
		m.apply(labmesh.SubmitTask{ID: id, Spec: labmesh.Spec{Kind: labmesh.Custom}}, labmesh.PlaceTask{ID: id, Attempt: 1, Worker: "w1"},
			labmesh.StartTask{ID: id, Attempt: 1, Worker: "w1"}, labmesh.FinishTask{ID: id, Attempt: 1, Worker: "w1", Outcome: labmesh.Outcome{OK: true}})
		_ = m.c.View()
	}
}

// TestDependents: a task waits for those it depends on, and is cancelled when one of them did not complete.
func TestDependents(t *testing.T) {
	t.Parallel()
	m := newMesh()
	submit := func(id labmesh.TaskID, on ...labmesh.TaskID) labmesh.Answer {
		_, a := m.apply(labmesh.SubmitTask{ID: id, Spec: labmesh.Spec{Kind: labmesh.Custom, DependsOn: on}})
		return a[0]
	}
	finish := func(id labmesh.TaskID, ok bool) {
		t.Helper()
		_, a := m.apply(labmesh.PlaceTask{ID: id, Attempt: 1, Worker: "w1"}, labmesh.StartTask{ID: id, Attempt: 1, Worker: "w1"},
			labmesh.FinishTask{ID: id, Attempt: 1, Worker: "w1", Outcome: labmesh.Outcome{OK: ok, Cause: labmesh.CauseExit}})
		for _, a := range a {
			if a.Refused != nil {
				t.Fatal(a.Refused)
			}
		}
	}
	phase := func(id labmesh.TaskID) labmesh.Phase { got, _ := m.c.v.Task(id); return got.Phase }
	if a := submit("x", "nobody"); labmesh.ReasonOf(a.Refused) != labmesh.Invalid || a.Refused.Field != "depends_on" {
		t.Errorf("a task that depends on nobody: %v", a.Refused)
	}
	submit("a")
	submit("b")
	submit("c", "a", "b", "a")
	submit("d", "c")
	finish("a", true)
	if _, a := m.apply(labmesh.PlaceTask{ID: "c", Attempt: 1, Worker: "w1"}); labmesh.ReasonOf(a[0].Refused) != labmesh.Conflict {
		t.Errorf("c was placed before b completed: %v", a[0].Refused)
	}
	finish("b", true)
	finish("c", true)
	finish("d", true) // would be refused if it still waited
	submit("e", "d")
	finish("e", true) // d completed before
	submit("f")
	submit("g", "f")
	submit("h", "g")
	submit("i", "h", "f")
	finish("f", false)
	for _, id := range []labmesh.TaskID{"g", "h", "i"} {
		got, _ := m.c.v.Task(id)
		if got.Phase != labmesh.Cancelled || got.Cause != labmesh.CauseDependency {
			t.Errorf("%s, which depends on f that failed: %s %s", id, got.Phase, got.Cause)
		}
	}
	submit("j", "g")
	if phase("j") != labmesh.Cancelled {
		t.Errorf("j, which depends on g that was cancelled before: %s", phase("j"))
	}
}
