package node

import (
	"labmesh"
	"labmesh/node/simtest"
)

// Down takes the node down, unless it is, until up is called.
func (n *simNode) Down(kind simtest.Kind) (up func()) {
	n.turn <- struct{}{}
	defer func() { <-n.turn }()
	n.down++
	if n.down == 1 {
		n.end(kind)
	}
	return func() {
		n.turn <- struct{}{}
		defer func() { <-n.turn }()
		if n.down--; n.down == 0 {
			n.up()
		}
	}
}

// end ends the present life.
func (n *simNode) end(kind simtest.Kind) {
	l := n.now()
	if kind == simtest.Stop {
		l.stop()
		<-l.done
		l.unplug()
	} else {
		n.log.PowerOff(n.sim.upTo)
		l.unplug()
		close(l.dead)
		l.stop()
		n.sim.ending.Go(func() { <-l.done }) // nobody hears of it any more
	}
	n.mu.Lock()
	n.life = nil
	n.mu.Unlock()
	if kind != simtest.Stop {
		n.log = n.log.Reboot()
	}
	if kind == simtest.PowerOff {
		for _, w := range n.workers {
			w.disks++
		}
	}
}

// unplug takes the life off the network, with its workers.
func (l *simLife) unplug() {
	l.port.Kill()
	for _, p := range l.ports {
		p.Kill()
	}
}

// upTo is a random number from 0 to n: how much of what was under way outlives a cut of the power.
func (s *sim) upTo(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.random.IntN(n + 1)
}

// Cut cuts lines between nodes.
func (s *sim) Cut(from, to []int) (heal func()) {
	f, t := s.ids(from), s.ids(to)
	s.net.Cut(f, t)
	return func() { s.net.Heal(f, t) }
}

// ids are the places on the network of nodes, and of what is with them.
func (s *sim) ids(nodes []int) (out []labmesh.NodeID) {
	for _, i := range nodes {
		out = append(out, s.nodes[i].id)
		for _, w := range s.nodes[i].workers {
			out = append(out, w.port())
		}
	}
	return out
}

// port is a worker's place on the network, where it is apart from its node.
func (w *simWorker) port() labmesh.NodeID { return labmesh.NodeID(w.id) }

// Down takes a node down.
func (s *sim) Down(i int, kind simtest.Kind) (up func()) { return s.nodes[i].Down(kind) }

// Pause has a node stand still, as far as others can tell: its own clocks go on.
func (s *sim) Pause(i int) (resume func()) {
	n := s.nodes[i]
	n.mu.Lock()
	defer n.mu.Unlock()
	one, rest := []labmesh.NodeID{n.id}, []labmesh.NodeID{}
	for _, other := range s.ids(s.all()) {
		if other != n.id {
			rest = append(rest, other)
		}
	}
	s.net.Hold(one, rest)
	s.net.Hold(rest, one)
	over, disk := make(chan struct{}), n.log.Hold()
	before := n.paused
	n.paused = over
	return func() {
		if before != nil {
			<-before // two pauses: what began first ends first
		}
		close(over)
		disk()
		s.net.Heal(one, rest)
		s.net.Heal(rest, one)
	}
}

// standsStill is closed when the node does not stand still any more; nil if it never did.
func (n *simNode) standsStill() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.paused
}

// isPaused reports whether the node stands still.
func (n *simNode) isPaused() bool {
	over := n.standsStill()
	if over == nil {
		return false
	}
	select {
	case <-over:
		return false
	default:
		return true
	}
}

// Silence cuts the line of a worker.
func (s *sim) Silence(i int) (end func()) {
	w := s.workers[i]
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.silent++; w.silent == 1 {
		w.back = make(chan struct{})
	}
	all, line := s.ids(s.all()), []labmesh.NodeID{w.port()}
	s.net.Cut(all, line)
	s.net.Cut(line, all)
	return func() {
		s.net.Heal(all, line)
		s.net.Heal(line, all)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.silent--; w.silent == 0 {
			close(w.back)
		}
	}
}

func (s *sim) all() (all []int) {
	for i := range s.nodes {
		all = append(all, i)
	}
	return all
}

func (w *simWorker) isSilent() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.silent > 0
}

// line is nil while the line works, else closed when it works again.
func (w *simWorker) line() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.silent == 0 {
		return nil
	}
	return w.back
}
