package node

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"labmesh"
	"labmesh/exec/cgroup"
	"labmesh/exec/probe"
	"labmesh/exec/sandbox"
)

// The words by which a worker says how it can hold what it runs.
const (
	absentCgroup  = "cgroup"   // among what is absent: why programs are not held to limits
	absentSandbox = "sandbox:" // and before the name of a sandbox: why it cannot be made
	limitsTool    = "limits"   // among the tools: programs are held to all limits, by what
)

// box makes the sandboxes of this node. What is the node's own is hidden there.
func box(cfg Config) sandbox.Box {
	b := sandbox.New(cfg.Sandbox, os.Environ())
	if dir, err := filepath.Abs(cfg.DataDir); err == nil {
		b.Hide, b.Show = []string{dir}, []string{filepath.Join(dir, enginesDir)}
	}
	return b
}

// capabilities finds out what this machine offers.
func (l *labour) capabilities(ctx context.Context, cfg Config) labmesh.Capabilities {
	var have []labmesh.Sandbox
	var absent map[labmesh.Sandbox]string
	var trying sync.WaitGroup
	if l.processes != nil {
		trying.Go(func() { have, absent = box(cfg).Probe(ctx) })
	}
	c := probe.Probe(ctx, probe.Config{Dir: cfg.DataDir, GPUChild: cfg.GPUChild, Declared: cfg.Declared})
	trying.Wait()
	c.Sandboxes = have
	for name, why := range absent {
		c.Absent[absentSandbox+string(name)] = why
	}
	if l.processes == nil {
		return c
	}
	switch held, why := l.processes.Holds(); {
	case len(why) == 0:
		c.Tools[limitsTool] = strings.Join(held, ", ") + " (" + l.processes.Version() + ")"
	case l.processes.Cgroups() != nil:
		c.Absent[absentCgroup] = l.processes.Cgroups().Error()
	default:
		var words []string
		for _, name := range cgroup.Controllers() {
			if !slices.Contains(held, name) {
				words = append(words, name+": "+why[name])
			}
		}
		c.Absent[absentCgroup] = strings.Join(words, "; ")
	}
	return c
}
