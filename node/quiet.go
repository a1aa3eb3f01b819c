package node

import (
	"context"
	"time"

	"labmesh/exec/probe"
	"labmesh/exec/process"
	"labmesh/exec/quiet"
)

// calmMax is for how long work that can wait does so while something is measured:
// a task may measure for a day.
const calmMax = 30 * time.Minute

// openMachine makes who watches this machine while it is measured; nil on a node
// that runs no programs.
func openMachine(cfg Config, processes *process.Host) *quiet.Machine {
	if processes == nil {
		return nil
	}
	return quiet.New(quiet.Config{
		Version: cfg.Version, Own: processes.CPUTime, Owns: processes.Owns,
		GPUs: func(context.Context) (quiet.GPUs, error) { return probe.OpenGPUs(nil, cfg.GPUStates), nil },
	})
}

// calm waits, within a bound, while something is measured on this machine.
func (n *Node) calm(ctx context.Context) { n.machine.Calm(ctx, calmMax) }
