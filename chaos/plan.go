package chaos

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Kind is a way in which machines and lines fail.
type Kind string

// What may happen to a node, or to the line between it and others.
const (
	Kill   Kind = "kill"   // its process is killed with -9, and started again at the end
	Storm  Kind = "storm"  // it is killed and started three times in a row
	Freeze Kind = "freeze" // its process stands still, and goes on at the end
	Cut    Kind = "cut"    // it and all others hear nothing of each other
	Mute   Kind = "mute"   // others do not hear it, and it hears them
	Deafen Kind = "deafen" // it does not hear others, and they hear it
	Bridge Kind = "bridge" // the mesh falls into two halves that only this node reaches
	Lossy  Kind = "lossy"  // a part of what comes in to it is lost
	Narrow Kind = "narrow" // its line takes few bits
)

// onsite are the faults that need no network of their own, Lines the others.
var (
	onsite = []Kind{Kill, Storm, Freeze}
	lines  = []Kind{Cut, Mute, Deafen, Bridge, Lossy, Narrow}
)

// Fault is one thing that goes wrong, for a while.
type Fault struct {
	At   time.Duration // after the start of the plan
	Kind Kind
	Node int           // whom it befalls
	For  time.Duration // until it is mended
}

func (f Fault) String() string {
	return fmt.Sprintf("%5.2fs %s n%d for %s", f.At.Seconds(), f.Kind, f.Node+1, f.For.Round(time.Millisecond))
}

// Plan is what goes wrong in one run, one fault after the other.
type Plan struct {
	Seed   uint64
	Faults []Fault
}

// NewPlan makes the plan of a seed: faults on nodes, one at a time, for about d.
// With network it has faults of lines too.
func NewPlan(seed uint64, nodes int, d time.Duration, network bool) Plan {
	chance := rand.New(rand.NewPCG(seed, 5))
	kinds := onsite
	if network {
		kinds = append(append([]Kind(nil), onsite...), lines...)
	}
	p := Plan{Seed: seed}
	for at := time.Duration(0); at < d; {
		f := Fault{At: at, Kind: kinds[chance.IntN(len(kinds))], Node: chance.IntN(nodes), For: 300*time.Millisecond + time.Duration(chance.Int64N(int64(4*time.Second)))}
		p.Faults = append(p.Faults, f)
		at += f.For + time.Duration(chance.Int64N(int64(time.Second)))
	}
	return p
}

func (p Plan) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "seed %d:", p.Seed)
	for _, f := range p.Faults {
		s.WriteString("\n  " + f.String())
	}
	return s.String()
}
