package state

import (
	"iter"
	"time"

	"github.com/tidwall/btree"

	"labmesh"
)

// View is the state at one log index. It never changes, and is safe to read
// from any goroutine. What it hands out must not be changed.
type View struct {
	mesh  labmesh.MeshID
	level int // 0 means 1
	index uint64
	now   time.Time

	seq      uint64 // tasks ever submitted
	attempts int64  // attempts ever recorded
	ends     uint64 // tasks ever ended
	kept     uint64 // endings from here on still have their task in tasks
	keptSize int    // bytes of results among them
	counts   Counts

	ids   *btree.Map[labmesh.TaskID, uint64] // every task that is known, by seq; those in ends but not in tasks are in the ledger only
	tasks *btree.Map[uint64, *labmesh.Task]  // live ones and the newest that ended, by seq
	keys  *btree.Map[string, labmesh.TaskID] // idempotency keys of the tasks in ids, see taskKey
	ended *btree.Map[uint64, ending]         // the tasks in ids that ended, in order of ending

	classes   *btree.Map[string, *Class] // those with a task waiting
	waits     *btree.BTreeG[edge]        // who depends on whom, as long as neither has ended
	queue     *btree.BTreeG[waiting]     // pending and due, by class, then in the order they go
	delayed   *btree.BTreeG[timer]       // pending, waiting before a retry
	deadlines *btree.BTreeG[timer]       // live tasks that someone must give up on at some time
	held      *btree.BTreeG[holding]     // assigned, running and cancelling, by worker

	workers *btree.Map[labmesh.WorkerID, *labmesh.Worker]
	used    *btree.Map[labmesh.WorkerID, Used]
	free    *btree.Map[labmesh.WorkerID, struct{}]      // active ones with a slot to spare
	tempo   *btree.Map[labmesh.WorkerID, time.Duration] // what their attempts take lately
	quick   *btree.Map[labmesh.WorkerID, struct{}]      // active ones that may be given more, ahead of a free slot

	outcomes *btree.Map[labmesh.WorkerID, []outcome] // how their newest attempts ended, oldest first; never written in place

	members *btree.Map[labmesh.NodeID, *labmesh.Member]
	invites *btree.Map[string, *labmesh.Invite]
	apiKeys *btree.Map[string, *labmesh.Key]
	secrets *btree.Map[string, *labmesh.Secret]

	tokenKeys *btree.Map[string, *labmesh.TokenKey]
	sealKey   string // id; "" while nothing is sealed
}

// Counts are how many tasks are in each phase; the final ones count all that ever ended.
type Counts map[labmesh.Phase]int

// Class is a set of pending tasks with equal needs.
type Class struct {
	ID      string
	Kind    labmesh.Kind
	Needs   labmesh.Requirements
	Waiting int  // pending tasks that are due
	Node    bool // only nodes can be given them, and no light worker
}

// Fits reports whether tasks of the class may ever run on w.
func (c *Class) Fits(w *labmesh.Worker) bool {
	return !(c.Node && w.Light) && c.Needs.Fits(c.Kind, w)
}

// Used is what the attempts that a worker holds take of it.
type Used struct {
	Tasks int
	Slots int
	GPUs  int
	Ahead int // attempts that wait on the worker for a slot, and take none yet
}

func emptyView() View {
	noLocks := btree.Options{NoLocks: true} // one writer; readers have copies
	return View{
		counts:    Counts{},
		ids:       new(btree.Map[labmesh.TaskID, uint64]),
		tasks:     new(btree.Map[uint64, *labmesh.Task]),
		keys:      new(btree.Map[string, labmesh.TaskID]),
		ended:     new(btree.Map[uint64, ending]),
		classes:   new(btree.Map[string, *Class]),
		waits:     btree.NewBTreeGOptions(edge.less, noLocks),
		queue:     btree.NewBTreeGOptions(waiting.less, noLocks),
		delayed:   btree.NewBTreeGOptions(timer.less, noLocks),
		deadlines: btree.NewBTreeGOptions(timer.less, noLocks),
		held:      btree.NewBTreeGOptions(holding.less, noLocks),
		workers:   new(btree.Map[labmesh.WorkerID, *labmesh.Worker]),
		used:      new(btree.Map[labmesh.WorkerID, Used]),
		free:      new(btree.Map[labmesh.WorkerID, struct{}]),
		tempo:     new(btree.Map[labmesh.WorkerID, time.Duration]),
		quick:     new(btree.Map[labmesh.WorkerID, struct{}]),
		outcomes:  new(btree.Map[labmesh.WorkerID, []outcome]),
		members:   new(btree.Map[labmesh.NodeID, *labmesh.Member]),
		invites:   new(btree.Map[string, *labmesh.Invite]),
		apiKeys:   new(btree.Map[string, *labmesh.Key]),
		secrets:   new(btree.Map[string, *labmesh.Secret]),
		tokenKeys: new(btree.Map[string, *labmesh.TokenKey]),
	}
}

// copy is constant in the number of tasks: the trees are copied on write.
func (v View) copy() View {
	counts := make(Counts, len(v.counts))
	for p, n := range v.counts {
		counts[p] = n
	}
	v.counts = counts
	v.ids, v.tasks, v.keys, v.ended = v.ids.Copy(), v.tasks.Copy(), v.keys.Copy(), v.ended.Copy()
	v.classes, v.queue, v.delayed = v.classes.Copy(), v.queue.Copy(), v.delayed.Copy()
	v.deadlines, v.held, v.waits = v.deadlines.Copy(), v.held.Copy(), v.waits.Copy()
	v.workers, v.used, v.free = v.workers.Copy(), v.used.Copy(), v.free.Copy()
	v.tempo, v.quick, v.outcomes = v.tempo.Copy(), v.quick.Copy(), v.outcomes.Copy()
	v.members, v.invites, v.apiKeys, v.secrets = v.members.Copy(), v.invites.Copy(), v.apiKeys.Copy(), v.secrets.Copy()
	v.tokenKeys = v.tokenKeys.Copy()
	return v
}

// Index is the log index of the last entry applied; 0 before the first.
func (v View) Index() uint64 { return v.index }

// Now is the time of the last entry. It never goes back.
func (v View) Now() time.Time { return v.now }

// Mesh is the mesh's name, "" before it was founded.
func (v View) Mesh() labmesh.MeshID { return v.mesh }

// Level is the feature level of the mesh: commands of a higher one may not enter
// its log, since not every replica is known to know them.
func (v View) Level() int { return max(v.level, 1) }

// Counts is how many tasks are in each phase.
func (v View) Counts() Counts { return v.counts }

// Submitted is how many tasks were ever submitted.
func (v View) Submitted() uint64 { return v.seq }

// Known reports whether the task was submitted, as far as the state remembers:
// all live tasks and those that ended lately.
func (v View) Known(id labmesh.TaskID) bool { _, ok := v.ids.Get(id); return ok }

// Task is a live task, or one of the newest that ended. Of others the ledger knows.
func (v View) Task(id labmesh.TaskID) (*labmesh.Task, bool) {
	seq, ok := v.ids.Get(id)
	if !ok {
		return nil, false
	}
	return v.tasks.Get(seq)
}

// TaskByKey is the task that was submitted in a project under an idempotency key.
func (v View) TaskByKey(project, key string) (labmesh.TaskID, bool) {
	return v.keys.Get(taskKey(project, key))
}

// Tasks yields the live tasks and the newest that ended, in the order of their
// submit, beginning after seq.
func (v View) Tasks(after uint64) iter.Seq[*labmesh.Task] {
	return func(yield func(*labmesh.Task) bool) {
		v.tasks.Ascend(after+1, func(_ uint64, t *labmesh.Task) bool { return yield(t) })
	}
}

// Held yields the tasks whose attempts a worker holds, oldest first.
func (v View) Held(w labmesh.WorkerID) iter.Seq[*labmesh.Task] {
	return func(yield func(*labmesh.Task) bool) {
		v.held.Ascend(holding{worker: w}, func(h holding) bool {
			if h.worker != w {
				return false
			}
			t, ok := v.tasks.Get(h.seq)
			return !ok || yield(t)
		})
	}
}

// Classes yields the classes in which a task waits that is due.
func (v View) Classes() iter.Seq[*Class] {
	return func(yield func(*Class) bool) {
		v.classes.Scan(func(_ string, c *Class) bool { return yield(c) })
	}
}

// Queue appends to buf at most limit tasks of a class that are due, in the
// order in which they are to go (priority, then age), beginning after a task
// of that class, or at the first for nil.
func (v View) Queue(class string, after *labmesh.Task, limit int, buf []*labmesh.Task) []*labmesh.Task {
	pivot := waiting{class: class, first: true}
	if after != nil {
		pivot = waiting{class: class, priority: after.Spec.Priority, seq: after.Seq + 1}
	}
	if limit < 1 {
		return buf
	}
	v.queue.Ascend(pivot, func(w waiting) bool {
		if w.class != class {
			return false
		}
		if t, ok := v.tasks.Get(w.seq); ok {
			buf = append(buf, t)
			limit--
		}
		return limit > 0
	})
	return buf
}

// Overdue yields the live tasks whose deadline is at or before now.
func (v View) Overdue(now time.Time) iter.Seq[*labmesh.Task] {
	return func(yield func(*labmesh.Task) bool) {
		v.deadlines.Scan(func(d timer) bool {
			if d.at.After(now) {
				return false
			}
			t, ok := v.tasks.Get(d.seq)
			return !ok || yield(t)
		})
	}
}

// NextTimer is when the next wait before a retry ends, and when the next
// deadline passes; zero where there is none.
func (v View) NextTimer() (wake, deadline time.Time) {
	if t, ok := v.delayed.Min(); ok {
		wake = t.at
	}
	if t, ok := v.deadlines.Min(); ok {
		deadline = t.at
	}
	return wake, deadline
}

// Worker is a worker that was ever registered.
func (v View) Worker(id labmesh.WorkerID) (*labmesh.Worker, bool) { return v.workers.Get(id) }

// Workers yields all workers by id.
func (v View) Workers() iter.Seq[*labmesh.Worker] { return values(v.workers) }

// FreeWorkers yields the active workers that have a slot to spare, by id.
func (v View) FreeWorkers() iter.Seq[*labmesh.Worker] {
	return func(yield func(*labmesh.Worker) bool) {
		v.free.Scan(func(id labmesh.WorkerID, _ struct{}) bool {
			w, ok := v.workers.Get(id)
			return !ok || yield(w)
		})
	}
}

// QuickWorkers yields the active workers whose attempts have been short lately,
// and that may be given tasks ahead of a free slot, by id. The next task is
// there the moment a slot is free, and its way through the log is shared.
func (v View) QuickWorkers() iter.Seq[*labmesh.Worker] {
	return func(yield func(*labmesh.Worker) bool) {
		v.quick.Scan(func(id labmesh.WorkerID, _ struct{}) bool {
			w, ok := v.workers.Get(id)
			return !ok || yield(w)
		})
	}
}

// AheadRoom is how many more tasks may be given to a worker ahead of a free slot.
func (v View) AheadRoom(w *labmesh.Worker) int {
	tempo, _ := v.tempo.Get(w.ID)
	return max(aheadRoom(w, tempo)-v.Used(w.ID).Ahead, 0)
}

// Used is what a worker's attempts take of it.
func (v View) Used(id labmesh.WorkerID) Used { u, _ := v.used.Get(id); return u }

// Member is a node that was ever admitted.
func (v View) Member(id labmesh.NodeID) (*labmesh.Member, bool) { return v.members.Get(id) }

// Members yields all nodes that were ever admitted, by id, banned ones too.
func (v View) Members() iter.Seq[*labmesh.Member] { return values(v.members) }

func values[K ~string, T any](m *btree.Map[K, *T]) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		m.Scan(func(_ K, v *T) bool { return yield(v) })
	}
}

// HoldsAll reports whether every task that was ever submitted is in the view
// whole, so that nobody need look in the ledger for one that is not.
func (v View) HoldsAll() bool { return v.kept == 0 }

// KnowsAll reports whether the id and idempotency key of every task that was
// ever submitted are known.
func (v View) KnowsAll() bool { return v.ends <= rememberMax }
