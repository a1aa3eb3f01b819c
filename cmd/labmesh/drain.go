package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
)

func newDrainCommand(a *app) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "drain WORKER…",
		Short: "Give workers no more tasks; those that they run go on",
		Long: `Give workers no more tasks. What they run goes on to its end, and what waits for
one of their slots goes elsewhere. They stay drained, also over restarts, until
labmesh undrain.`,
		Example: `  labmesh drain w-3f9c1d2e --reason "new disk on Friday"
  labmesh workers                         # says draining, and how many slots are still taken
  labmesh undrain w-3f9c1d2e`,
		Args: args(cobra.MinimumNArgs(1), "it takes worker ids (labmesh workers lists them)"),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return a.each(cmd.Context(), ids, func(ctx context.Context, c *client.Client, id string) (any, string, error) {
				reply, err := c.Drain(ctx, labmesh.WorkerID(id), reason)
				return reply, reply.Message, err
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for whoever asks why nothing runs there")
	return cmd
}

func newUndrainCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "undrain WORKER…",
		Short:   "Let workers that were drained or quarantined take tasks again",
		Example: "  labmesh undrain w-3f9c1d2e",
		Args:    args(cobra.MinimumNArgs(1), "it takes worker ids (labmesh workers lists them)"),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return a.each(cmd.Context(), ids, func(ctx context.Context, c *client.Client, id string) (any, string, error) {
				reply, err := c.Undrain(ctx, labmesh.WorkerID(id))
				return reply, reply.Message, err
			})
		},
	}
}

func newBanCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ban WORKER|NODE…",
		Short: "Shut nodes out of the mesh for ever; their tasks go elsewhere",
		Long: `Shut nodes out of the mesh, by the id of the node or of its worker: no other node
speaks to them from now on. Their tasks go elsewhere; if they voted, others take
their place. There is no way back: a machine that was banned by mistake joins
again as a new node, with an empty data dir and an invite. What it knew of the mesh it still
knows: change the secrets and keys that were on it.`,
		Example: "  labmesh ban w-3f9c1d2e",
		Args:    args(cobra.MinimumNArgs(1), "it takes ids of workers or nodes (labmesh workers and labmesh status show them)"),
		RunE: func(cmd *cobra.Command, names []string) error {
			return a.each(cmd.Context(), names, func(ctx context.Context, c *client.Client, name string) (any, string, error) {
				reply, err := c.Ban(ctx, name)
				if err == nil {
					reply.Message += keysLeft(ctx, c, reply.Node)
				}
				return reply, reply.Message, err
			})
		},
	}
}

// keysLeft names the keys that a machine keeps for the person at it: they open as
// before when its node is banned. It is "" where there is none, or nobody can say.
func keysLeft(ctx context.Context, c *client.Client, node labmesh.NodeID) (left string) {
	workers, err := c.Workers(ctx)
	at := slices.IndexFunc(workers, func(w api.WorkerSummary) bool { return w.Node == node })
	if err != nil || at < 0 {
		return ""
	}
	keys, err := c.Keys(ctx)
	if err != nil {
		return ""
	}
	for _, k := range keys {
		if string(k.Name) == "admin@"+workers[at].Hostname && k.Revoked.IsZero() {
			left += "; the key of that machine still opens: labmesh key revoke " + k.ID
		}
	}
	return left
}

// each does something to each of ids in turn, and says how that went. It stops
// when the mesh cannot be asked; what is wrong with one id does not keep it from the others.
func (a *app) each(ctx context.Context, ids []string, do func(ctx context.Context, c *client.Client, id string) (reply any, message string, err error)) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	replies, worst := []any{}, error(nil)
	for _, id := range ids {
		reply, message, err := do(ctx, c, id)
		switch r := labmesh.ReasonOf(err); {
		case err == nil:
			replies = append(replies, reply)
			if !a.json {
				fmt.Fprintf(a.out, "%s\t%s\n", id, printable(message))
			}
		case r == labmesh.NotFound || r == labmesh.Invalid || r == labmesh.Conflict:
			if worst != nil {
				a.explain(worst)
			}
			worst = named(err, id) // and on to the next
		default:
			return err
		}
	}
	if a.json {
		if err := a.printJSON(replies); err != nil {
			return err
		}
	}
	return worst
}
