package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"labmesh"
	"labmesh/api"
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
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			replies, worst := []api.CancelReply{}, error(nil)
			for _, id := range ids {
				reply, err := c.Cancel(cmd.Context(), labmesh.TaskID(id), reason)
				switch r := labmesh.ReasonOf(err); {
				case err == nil:
					replies = append(replies, reply)
					if !a.json {
						fmt.Fprintf(a.out, "%s\t%s\n", reply.ID, printable(reply.Message))
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
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return cmd
}
