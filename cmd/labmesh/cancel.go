package main

import (
	"context"

	"github.com/spf13/cobra"

	"labmesh"
	"labmesh/client"
)

func newCancelCommand(a *app) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "cancel ID…",
		Short: "Cancel tasks",
		Long: `Cancel tasks. A task that a worker holds is sent SIGTERM, and SIGKILL soon after
with all its children; until then it is cancelling.`,
		Example: `  labmesh cancel "$(labmesh run --detach -- sleep 60)"
  labmesh tasks --status pending --all --json | jq -r '.[].task_id' | xargs labmesh cancel`,
		Args: args(cobra.MinimumNArgs(1), "it takes task ids (labmesh tasks lists them)"),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return a.each(cmd.Context(), ids, func(ctx context.Context, c *client.Client, id string) (any, string, error) {
				reply, err := c.Cancel(ctx, labmesh.TaskID(id), reason)
				return reply, reply.Message, err
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return cmd
}
