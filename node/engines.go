package node

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"labmesh"
	"labmesh/exec/bench/engines"
	"labmesh/exec/probe"
	"labmesh/exec/runner"
)

// enginesDir is where a node keeps the runners of engines, and what it knows of them.
const enginesDir = "engines"

// An engine that did not answer in time may have had a busy machine: it is asked again.
const (
	lateAgain    = 2 * time.Minute // doubled each time
	lateTriesMax = 4
)

// newFinder makes what finds the engines of this machine.
func newFinder(cfg Config) *engines.Finder {
	environ := os.Environ()
	return engines.New(engines.Config{
		Dir: filepath.Join(cfg.DataDir, enginesDir), Pythons: func() []string { return probe.Pythons(environ) },
		Env: runner.Environ(environ), BuiltIn: cfg.BuiltIn, Logger: cfg.Logger,
	})
}

// equip enters what was found of engines into what a machine offers.
func equip(c *labmesh.Capabilities, found []engines.Found) {
	c.Engines = nil
	ran := make([]probe.Ran, 0, len(found))
	for _, f := range found {
		c.Engines = append(c.Engines, f.Engine)
		ran = append(ran, probe.Ran{Engine: f.Engine, Devices: f.Devices, Why: f.Absent})
	}
	if c.Tools == nil {
		c.Tools = map[string]string{}
	}
	maps.Copy(c.Tools, engines.Tools(found))
	probe.Merge(c, ran)
}

// keepLooking asks the engines, which takes seconds, and looks at the whole machine
// again whenever somebody wants it. It tells the mesh what changed.
func (l *labour) keepLooking(ctx context.Context, facts labmesh.Capabilities) error {
	if l.look == nil || l.finder == nil {
		return nil
	}
	found := l.finder.Ask(ctx)
	for tries := 0; ctx.Err() == nil; {
		if err := l.offer(ctx, func(c *labmesh.Capabilities) {
			calibration := c.Calibration
			*c = copied(facts)
			c.Calibration = calibration
			equip(c, found)
		}); err != nil {
			return err
		}
		var late <-chan time.Time
		if slices.ContainsFunc(found, func(f engines.Found) bool { return f.Late }) && tries < lateTriesMax {
			late = time.After(lateAgain << tries)
		}
		select {
		case <-l.recheck:
			l.logger.InfoContext(ctx, "looking at the machine anew")
			facts, found, tries = l.look(ctx), l.finder.Ask(ctx), 0
		case <-late:
			found, tries = l.finder.Find(ctx), tries+1
		case <-ctx.Done():
		}
	}
	return nil
}

// offer changes what this machine offers, and has the mesh know it.
func (l *labour) offer(ctx context.Context, change func(*labmesh.Capabilities)) error {
	l.mu.Lock()
	c := copied(l.self.Capabilities)
	change(&c)
	same := reflect.DeepEqual(l.self.Capabilities, c)
	l.self.Capabilities = c
	l.mu.Unlock()
	if same || ctx.Err() != nil {
		return nil
	}
	_, err := l.register(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// copied is c with maps and lists of its own, as far as they are ever changed.
func copied(c labmesh.Capabilities) labmesh.Capabilities {
	c.Hardware, c.Devices = slices.Clone(c.Hardware), slices.Clone(c.Devices)
	for i := range c.Devices {
		c.Devices[i].Engines = slices.Clone(c.Devices[i].Engines)
	}
	c.Absent, c.Tools = maps.Clone(c.Absent), maps.Clone(c.Tools)
	return c
}

// worksAs is the worker as the mesh is to know it.
func (l *labour) worksAs() labmesh.Worker {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.self
}

// Recheck looks at what this machine offers anew, beside what the node does.
func (n *Node) Recheck() {
	l := n.labour.Load()
	if l == nil {
		return
	}
	select {
	case l.recheck <- struct{}{}:
	default: // somebody wanted it already
	}
}
