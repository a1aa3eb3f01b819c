package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"labmesh/api"
	"labmesh/client"
)

func newAuditCommand(a *app) *cobra.Command {
	var q client.AuditQuery
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "List what was done to the mesh, by whom and from where",
		Long: `List what was done to the mesh, or was tried and refused: the newest first. Submits by one key
are one line a second at most, with their number; so are requests without a good key
from one address. The whole of it is the table audit_log (labmesh sql). It takes an admin key.`,
		Example: "  labmesh audit --since 24h\n  labmesh audit --action ban\n  labmesh audit --actor 3f9c1d2e --json",
		Args:    args(cobra.NoArgs, "it takes no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd.Context(), a, func(ctx context.Context, c *client.Client) (api.AuditLog, error) {
				records, err := c.Audit(ctx, q)
				return api.AuditLog{Records: records}, err
			}, func(reply api.AuditLog) error {
				t := newTable(a.out, "TIME", "WHO", "ROLE", "FROM", "ACTION", "TARGET", "OUTCOME", "COUNT")
				for _, r := range reply.Records {
					who := r.Actor
					if r.Name != "" {
						who = r.Name + "/" + r.Actor
					}
					t.row(r.At.Local().Format("2006-01-02 15:04:05"), cmp.Or(who, "unknown"), r.Role, r.Remote, r.Action, r.Target, r.Outcome, fmt.Sprint(max(1, r.Count)))
				}
				return t.flush()
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.Since, "since", "", "only what was done since then: a `TIME`, or how long ago, like 36h or 14d")
	f.StringVar(&q.Actor, "actor", "", "only what this `KEY` did, by id or name, or this node")
	f.StringVar(&q.Action, "action", "", "only actions that contain this `WORD`")
	f.IntVar(&q.Limit, "limit", 0, "how many at most, up to 1000; 100 by default")
	return cmd
}
