package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"labmesh/lab"
)

// lossPercent and narrowKbits are how bad lossy and narrow lines are.
const (
	lossPercent = 20
	narrowKbits = 256
	stormKills  = 3
)

// Injector does to a mesh what a plan says. Lines may be nil when no fault of the plan is one of them.
type Injector struct {
	Mesh  *lab.Mesh
	Lines Lines
	// Back is told when a node was started again; nil for nobody.
	Back func()
}

// Lines are what connects the nodes of a mesh; nodes are counted as in [lab.Mesh].
type Lines interface {
	// Break does what a fault of a line says to the lines of a node.
	Break(kind Kind, node int) error
	// Heal undoes all that was done to any line.
	Heal() error
}

// Run has all faults of a plan happen at their times, and mends each. When it
// returns, every node runs and every line is whole, or the error says what is not.
func (i Injector) Run(ctx context.Context, p Plan) error {
	began := time.Now()
	for _, f := range p.Faults {
		if err := sleep(ctx, time.Until(began.Add(f.At))); err != nil {
			return err
		}
		if err := i.Inject(ctx, f); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
	}
	return nil
}

// Inject has one fault happen now, waits as long as it lasts, and mends it.
func (i Injector) Inject(ctx context.Context, f Fault) error {
	n := i.Mesh.Nodes[f.Node]
	switch f.Kind {
	case Kill:
		return errors.Join(n.Kill(), sleep(ctx, f.For), i.start(ctx, n))
	case Storm:
		for range stormKills {
			if err := errors.Join(n.Kill(), sleep(ctx, f.For/(2*stormKills)), i.start(ctx, n), sleep(ctx, f.For/(2*stormKills))); err != nil {
				return err
			}
		}
		return nil
	case Freeze:
		return errors.Join(n.Pause(), sleep(ctx, f.For), n.Resume())
	}
	if i.Lines == nil {
		return errors.New("the mesh has no lines that could be broken")
	}
	return errors.Join(i.Lines.Break(f.Kind, f.Node), sleep(ctx, f.For), i.Lines.Heal())
}

func (i Injector) start(ctx context.Context, n *lab.Node) error {
	err := n.Start(ctx)
	if err == nil && i.Back != nil {
		i.Back()
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
