package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labmesh"
	"labmesh/api"
)

func newStatusCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "The mesh at a glance: leader, voters, lag, counts, warnings",
		Long: `The mesh at a glance, as the node that is asked sees it. It works with no leader
too: then it says so and exits with 3.`,
		Example: "  labmesh status\n  labmesh status --json\n  labmesh --addr http://127.0.0.1:8081 status",
		Args:    args(cobra.NoArgs, "it takes no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			s, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				err = a.printJSON(s)
			} else {
				err = a.printStatus(s)
			}
			if err == nil && s.Leader == "" {
				return exitError{exitNoNode, noLeader}
			}
			return err
		},
	}
}

const noLeader = "the mesh has no leader: reading works, submitting waits until a majority of the voters is back"

func (a *app) printStatus(s api.Status) error {
	t := newTable(a.out)
	leader := a.paint(a.out, red, "none")
	if s.Leader != "" {
		leader = string(s.Leader)
	}
	for _, line := range [][2]string{
		{"mesh", string(s.Mesh)},
		{"node", fmt.Sprintf("%s (%s, up %s, version %s)", s.Node, s.Role, short(seconds(s.Uptime)), s.Version)},
		{"leader", fmt.Sprintf("%s (term %d)", leader, s.Term)},
		{"voters", fmt.Sprintf("%d, quorum %d: %s", len(s.Voters), s.Quorum, survives(s))},
		{"replicas", fmt.Sprintf("%d, and %d leaves", len(s.Replicas), len(s.Leaves))},
		{"log", lag(s)},
		{"workers", workerCounts(s.Workers)},
		{"tasks", taskCounts(s.Tasks)},
	} {
		t.line(line[:])
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, w := range s.Warnings {
		fmt.Fprintln(a.out, a.paint(a.out, yellow, "warning:"), printable(w))
	}
	return nil
}

func workerCounts(w api.WorkerCounts) string {
	held := ""
	if w.Held > 0 {
		held = fmt.Sprintf(", %d draining or quarantined", w.Held)
	}
	return fmt.Sprintf("%d: %d active (%d idle)%s, %d offline", w.Total, w.Active, w.Idle, held, w.Offline)
}

// survives says in plain words how many losses the mesh can take.
func survives(s api.Status) string {
	spare := s.VotersAlive - s.Quorum
	switch {
	case len(s.Voters) == 0:
		return "none is known"
	case spare < 0:
		return fmt.Sprintf("%d of them heard of, too few to decide anything", s.VotersAlive)
	case spare <= 0 && len(s.Voters) == 1:
		return "no failover; the mesh stops when this voter does. Join two more machines"
	case spare <= 0:
		return fmt.Sprintf("no failover: %d of them heard of; the mesh stops when one more is lost", s.VotersAlive)
	case spare == 1:
		return "the mesh survives the loss of any one of them"
	}
	return fmt.Sprintf("the mesh survives the loss of any %d of them", spare)
}

func lag(s api.Status) string {
	text := fmt.Sprintf("applied %d, ledger %d", s.Applied, s.Ledger)
	if s.Applied > s.Ledger {
		text += fmt.Sprintf(" (%d behind)", s.Applied-s.Ledger)
	}
	if s.Role != "leader" && s.Stale > 0 {
		text += ", heard of the leader " + short(seconds(s.Stale)) + " ago"
	}
	return text
}

// taskCounts names the counts that are not 0, in the order of a task's life.
func taskCounts(counts map[string]int) string {
	var parts []string
	for _, p := range labmesh.Phases() {
		if n := counts[string(p)]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, p))
		}
	}
	text := fmt.Sprint(counts["total"])
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	return text
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// sortedKeys is the keys of m in order.
func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
