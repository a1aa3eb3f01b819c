package simtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"labmesh"
)

// Mesh is a mesh under torture. Each pair of a fault and its undoing is called
// once, from a goroutine of its own; several may hold at a time.
type Mesh interface {
	// Submit, Cancel and Task are what a client asks of a node, which refuses
	// with Unavailable while it is down.
	Submit(ctx context.Context, node int, spec labmesh.Spec) (labmesh.TaskID, error)
	Cancel(ctx context.Context, node int, id labmesh.TaskID) error
	Task(ctx context.Context, node int, id labmesh.TaskID) (labmesh.Task, error)

	// Leader is who leads, as far as a look at all nodes tells; -1 for nobody.
	Leader() int
	// Cut stops what nodes in from send to nodes in to, until it is healed.
	Cut(from, to []int) (heal func())
	// Down takes a node down as kind says, which is Stop, Kill or PowerOff, until it is brought up.
	Down(node int, kind Kind) (up func())
	// Pause has a node stand still: it sends nothing, hears nothing, writes nothing and answers nobody. What is
	// sent to it and what it was about to send arrives when it goes on.
	Pause(node int) (resume func())
	// Silence cuts a worker's line to its node.
	Silence(worker int) (end func())
}

// Limits of clients.
const (
	tryFor    = 8 * time.Second // one call
	retryWait = 150 * time.Millisecond
	patience  = 3 * time.Minute // of one who submits: by then all has long healed
)

// Drive has clients work and faults come as the plan says. It returns when
// every order was acknowledged and every fault is undone.
func Drive(ctx context.Context, p Plan, m Mesh, h *History, trail *Trail) error {
	d := &driver{plan: p, mesh: m, history: h, trail: trail}
	var all sync.WaitGroup
	for _, f := range p.Faults {
		all.Go(func() { d.fault(f) })
	}
	for c := range p.Size.Clients {
		all.Go(func() {
			for _, o := range p.Orders {
				if o.Client == c {
					d.order(ctx, o)
				}
			}
		})
	}
	all.Wait()
	d.looking.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(d.errs...)
}

type driver struct {
	plan    Plan
	mesh    Mesh
	history *History
	trail   *Trail
	looking sync.WaitGroup

	mu   sync.Mutex
	errs []error
}

func (d *driver) fail(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.errs) < 10 {
		d.errs = append(d.errs, fmt.Errorf(format, args...))
	}
}

func (d *driver) fault(f Fault) {
	time.Sleep(f.At)
	defer func(undo func()) { undo() }(d.begin(f))
	time.Sleep(f.For)
}

// begin begins a fault and returns what undoes it.
func (d *driver) begin(f Fault) (undo func()) {
	switch f.Kind {
	case Split:
		return d.split(f.Nodes)
	case OneWay:
		return d.mesh.Cut(f.Nodes, d.rest(f.Nodes))
	case Deaf:
		return d.mesh.Cut(d.rest(f.Nodes), f.Nodes)
	case Bridge:
		return d.apart(f.Nodes[:1], f.Nodes[1:])
	case Halves:
		half := f.Nodes[1:]
		return d.apart(half, d.rest(f.Nodes))
	case CutLeader, MuteLead, DeafLead, PauseLead:
		if leader := d.mesh.Leader(); leader >= 0 {
			return d.beginWith(f.Kind, leader)
		}
	case Stop, Kill, PowerOff:
		return d.mesh.Down(f.Nodes[0], f.Kind)
	case Storm:
		for range f.Times {
			d.mesh.Down(f.Nodes[0], Kill)()
			time.Sleep(f.For / time.Duration(f.Times))
		}
	case Blackout:
		undo = func() {}
		for i := range d.plan.Size.Nodes {
			undo = both(undo, d.mesh.Down(i, PowerOff))
		}
		return undo
	case Silence:
		return d.mesh.Silence(f.Worker)
	}
	return func() {}
}

// beginWith begins a fault of the node that leads.
func (d *driver) beginWith(kind Kind, leader int) (undo func()) {
	one := []int{leader}
	switch kind {
	case MuteLead:
		return d.mesh.Cut(one, d.rest(one))
	case DeafLead:
		return d.mesh.Cut(d.rest(one), one)
	case PauseLead:
		return d.mesh.Pause(leader)
	}
	return d.split(one)
}

func (d *driver) split(nodes []int) (heal func()) { return d.apart(nodes, d.rest(nodes)) }

func (d *driver) apart(a, b []int) (heal func()) {
	return both(d.mesh.Cut(a, b), d.mesh.Cut(b, a))
}

func both(a, b func()) func() { return func() { a(); b() } }

func (d *driver) rest(of []int) (rest []int) {
	in := map[int]bool{}
	for _, i := range of {
		in[i] = true
	}
	for i := range d.plan.Size.Nodes {
		if !in[i] {
			rest = append(rest, i)
		}
	}
	return rest
}

// Spec is the order as it is submitted.
func (o Order) Spec() labmesh.Spec {
	config, _ := json.Marshal(o.Job) // a struct of numbers and texts
	spec := labmesh.Spec{Kind: labmesh.Custom, IdempotencyKey: o.Key, Config: config, OnDisconnect: o.Disconnect, TimeoutSeconds: o.Timeout.Seconds(), Retry: &labmesh.RetryPolicy{MaxRetries: 2, BackoffSeconds: 0.2}}
	if o.Once {
		spec.MaxAttempts = 1
	}
	return spec
}

// order submits one task until it is acknowledged, and then looks after it.
func (d *driver) order(ctx context.Context, o Order) {
	time.Sleep(o.After)
	called := time.Now()
	for try := 0; ; try++ {
		id, err := d.submit(ctx, o, (o.Via+try)%d.plan.Size.Nodes)
		if err == nil {
			d.history.Note(o.Client, o.Key, Ask{Op: Submit}, Word{}, called)
			d.looking.Go(func() { d.after(ctx, o, id) })
			return
		}
		if labmesh.ReasonOf(err) != labmesh.Unavailable || time.Since(called) > patience {
			d.fail("submit of %s, after %s: %w", o.Key, time.Since(called), err)
			return
		}
		time.Sleep(retryWait)
	}
}

func (d *driver) submit(ctx context.Context, o Order, via int) (labmesh.TaskID, error) {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	id, err := d.mesh.Submit(ctx, via, o.Spec())
	if err == nil {
		if err := d.history.Named(o.Key, id); err != nil {
			d.fail("%w", err)
		}
	}
	if err != nil && ctx.Err() != nil {
		err = labmesh.Refuse(labmesh.Unavailable, "no answer: %v", err)
	}
	return id, err
}

// after cancels and reads a task as its order says.
func (d *driver) after(ctx context.Context, o Order, id labmesh.TaskID) {
	var both sync.WaitGroup
	if o.Cancel > 0 {
		both.Go(func() {
			time.Sleep(o.Cancel)
			d.cancel(ctx, o, id)
		})
	}
	for _, r := range o.Reads {
		time.Sleep(r.After)
		if r.Fresh {
			d.fresh(ctx, o, r.Via)
		} else if t, err := d.mesh.Task(ctx, r.Via, id); err == nil {
			d.trail.Saw(r.Via, t)
		}
	}
	both.Wait()
}

// cancel asks until there is an answer; each try may have been done.
func (d *driver) cancel(ctx context.Context, o Order, id labmesh.TaskID) {
	for try := 1; ; try++ {
		called := time.Now()
		within, cancel := context.WithTimeout(ctx, tryFor)
		err := d.mesh.Cancel(within, (o.Via+try)%d.plan.Size.Nodes, id)
		cancel()
		switch labmesh.ReasonOf(err) {
		case "":
			d.history.Note(o.Client, o.Key, Ask{Op: Cancel}, Word{}, called)
			return
		case labmesh.Conflict:
			d.history.Note(o.Client, o.Key, Ask{Op: Cancel}, Word{Refused: true}, called)
			return
		case labmesh.NotFound:
			d.fail("cancel of %s (%s), which was acknowledged: %w", o.Key, id, err)
			return
		}
		d.history.Note(o.Client, o.Key, Ask{Op: Cancel}, Word{Unknown: true}, called)
		if time.Since(called) > patience {
			d.fail("cancel of %s: %w", o.Key, err)
			return
		}
		time.Sleep(retryWait)
	}
}

// fresh reads what is true at some time between its call and its return: a
// submit that was made before changes nothing, and the node that answered it has
// caught up with the answer.
func (d *driver) fresh(ctx context.Context, o Order, via int) {
	called := time.Now()
	id, err := d.submit(ctx, o, via)
	if err != nil {
		return
	}
	t, err := d.mesh.Task(ctx, via, id)
	if err != nil {
		if labmesh.ReasonOf(err) == labmesh.NotFound {
			d.fail("node %d does not know %s (%s), which it had just acknowledged: %w", via, id, o.Key, err)
		}
		return // it may have gone down meanwhile
	}
	d.trail.Saw(via, t)
	d.history.Note(o.Client, o.Key, Ask{Op: Look}, Word{Phase: t.Phase, Attempt: t.Attempt}, called)
}
