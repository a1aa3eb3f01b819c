package simtest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"labmesh"
)

// Kind is a kind of fault.
type Kind string

// The faults. Each begins, lasts and is undone.
const (
	Split     Kind = "split"      // nodes reach one another and none of the rest
	OneWay    Kind = "one-way"    // what they send to the rest is lost
	Deaf      Kind = "deaf"       // what the rest sends to them is lost
	Bridge    Kind = "bridge"     // two nodes do not reach each other; both reach the rest
	Halves    Kind = "halves"     // two halves that do not reach each other; the first node reaches both
	CutLeader Kind = "cut-leader" // whoever leads at the time is split off
	MuteLead  Kind = "mute-lead"  // what whoever leads at the time sends is lost; it hears the rest
	DeafLead  Kind = "deaf-lead"  // what is sent to whoever leads at the time is lost
	PauseLead Kind = "pause-lead" // whoever leads at the time stands still, and then goes on where it was
	Stop      Kind = "stop"       // a node is stopped in order, and started again
	Kill      Kind = "kill"       // a node is killed, and started again
	PowerOff  Kind = "power-off"  // a machine goes dark: what was not synced is lost, and what ran is gone
	Storm     Kind = "storm"      // a node is killed again and again
	Blackout  Kind = "blackout"   // all machines go dark at once
	Silence   Kind = "silence"    // a worker's line to its node is dead, both ways
)

// Fault is one fault of a plan.
type Fault struct {
	Kind   Kind
	At     time.Duration // from the begin of the chaos
	For    time.Duration
	Nodes  []int
	Worker int
	Times  int // of a storm
}

func (f Fault) String() string {
	s := fmt.Sprintf("%6.2fs +%5.2fs %s", f.At.Seconds(), f.For.Seconds(), f.Kind)
	switch f.Kind {
	case CutLeader, MuteLead, DeafLead, PauseLead, Blackout:
		return s
	case Silence:
		return fmt.Sprintf("%s of worker %d", s, f.Worker)
	case Storm:
		return fmt.Sprintf("%s of node %d, %d times", s, f.Nodes[0], f.Times)
	}
	return fmt.Sprintf("%s of nodes %v", s, f.Nodes)
}

// Order is one task as a client will ask for it.
type Order struct {
	Client int
	After  time.Duration // that the client waits before it
	Key    string        // the idempotency key
	Job    Job
	Via    int           // the node that is asked first
	Cancel time.Duration // after the submit was acknowledged; 0 for never
	Reads  []Read
	Once   bool // at most one attempt
	// Disconnect is what becomes of an attempt whose worker is cut off, as [labmesh.Spec] has it.
	Disconnect string
	Timeout    time.Duration // of one attempt; 0 for none
}

// Read is one look at a task.
type Read struct {
	After time.Duration
	Via   int
	Fresh bool // it must see all that was acknowledged before it
}

// Size is how large a simulation is.
type Size struct {
	Nodes, Workers  int
	Clients, Orders int           // and orders of each
	Chaos           time.Duration // how long faults begin
	FaultsMax       int
}

// Plan is all that a seed decides.
type Plan struct {
	Seed   uint64
	Size   Size
	Orders []Order
	Faults []Fault
}

// Random is the generator of a seed, for what a mesh is made of.
func Random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x1ab3e54)) } //nolint:gosec // it must repeat

// NewPlan is the plan of a seed. The same seed and size give the same plan.
func NewPlan(seed uint64, size Size) Plan {
	p := planner{r: Random(seed), size: size}
	plan := Plan{Seed: seed, Size: size}
	for c := range size.Clients {
		for o := range size.Orders {
			plan.Orders = append(plan.Orders, p.order(c, o))
		}
	}
	for range 1 + p.r.IntN(size.FaultsMax) {
		plan.Faults = append(plan.Faults, p.fault())
	}
	return plan
}

// String tells the plan to a person.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d nodes, %d workers, %d tasks, %d faults\n", p.Seed, p.Size.Nodes, p.Size.Workers, len(p.Orders), len(p.Faults))
	for _, f := range p.Faults {
		fmt.Fprintf(&b, "  %s\n", f)
	}
	return b.String()
}

type planner struct {
	r    *rand.Rand
	size Size
}

// span is a random time in [least, most), shorter ones more often.
func (p *planner) span(least, most time.Duration) time.Duration {
	x := p.r.Float64()
	return least + time.Duration(x*x*float64(most-least))
}

func (p *planner) chance(of float64) bool { return p.r.Float64() < of }

func (p *planner) order(client, n int) Order {
	o := Order{
		Client: client, Key: fmt.Sprintf("c%d-%d", client, n), Via: p.r.IntN(p.size.Nodes),
		After: p.span(0, p.size.Chaos/time.Duration(p.size.Orders)),
		Job:   Job{Name: fmt.Sprintf("c%d-%d", client, n), Takes: p.span(5*time.Millisecond, 4*time.Second).Milliseconds(), Slow: p.span(0, 300*time.Millisecond).Milliseconds()},
		Once:  p.chance(0.1),
	}
	if p.chance(0.1) { // longer than the lease of its worker
		o.Job.Takes += (8 * time.Second).Milliseconds()
	}
	if p.chance(0.2) {
		o.Job.Bad = 1 + p.r.IntN(3)
	}
	if p.chance(0.25) {
		o.Cancel = max(p.span(0, 3*time.Second), 1)
	}
	switch {
	case p.chance(0.15):
		o.Disconnect = labmesh.Keep
	case p.chance(0.15):
		o.Disconnect = p.span(time.Second, 20*time.Second).Round(100 * time.Millisecond).String()
	}
	if p.chance(0.1) {
		o.Timeout = p.span(500*time.Millisecond, 10*time.Second)
	}
	for range p.r.IntN(4) {
		o.Reads = append(o.Reads, Read{After: p.span(0, 2*time.Second), Via: p.r.IntN(p.size.Nodes), Fresh: p.chance(0.6)})
	}
	return o
}

// weights say how often each fault is drawn.
var weights = []struct {
	kind   Kind
	weight int
}{
	{Split, 3}, {OneWay, 3}, {Deaf, 2}, {Bridge, 2}, {Halves, 3}, {CutLeader, 4}, {MuteLead, 2}, {DeafLead, 2}, {PauseLead, 4}, {Stop, 3}, {Kill, 3}, {PowerOff, 3}, {Storm, 1}, {Blackout, 1}, {Silence, 5},
}

func (p *planner) kind() Kind {
	total := 0
	for _, w := range weights {
		total += w.weight
	}
	n := p.r.IntN(total)
	for _, w := range weights {
		if n -= w.weight; n < 0 {
			return w.kind
		}
	}
	return Split
}

func (p *planner) fault() Fault {
	f := Fault{Kind: p.kind(), At: time.Duration(p.r.Int64N(int64(p.size.Chaos))), For: p.span(50*time.Millisecond, 12*time.Second)}
	switch f.Kind {
	case Split, OneWay, Deaf:
		f.Nodes = p.r.Perm(p.size.Nodes)[:1+p.r.IntN(p.size.Nodes-1)]
	case Bridge:
		f.Nodes = p.r.Perm(p.size.Nodes)[:2]
	case Stop, Kill, PowerOff, Storm:
		f.Nodes = []int{p.r.IntN(p.size.Nodes)}
		f.Times = 2 + p.r.IntN(3)
	case Silence:
		f.Worker = p.r.IntN(p.size.Workers)
		f.For = []time.Duration{500 * time.Millisecond, 3 * time.Second, 6 * time.Second, 12 * time.Second, 18 * time.Second}[p.r.IntN(5)] // half a lease, one, two, three
	case Halves:
		f.Nodes = p.r.Perm(p.size.Nodes)[:1+p.size.Nodes/2] // the one between, and one half
	case CutLeader, MuteLead, DeafLead, PauseLead, Blackout:
	}
	return f
}
