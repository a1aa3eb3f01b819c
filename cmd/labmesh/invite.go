package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
)

func newInviteCommand(a *app) *cobra.Command {
	var role string
	var ttl time.Duration
	var uses int
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "Make an invite: one string that lets another machine join",
		Long: `Make an invite and print it, alone on stdout. It holds the mesh id, addresses, a
secret, a role and when it expires: whoever has it can join, so pass it on like
a password. On the next machine: labmesh up --join INVITE`,
		Example: `  labmesh invite
  labmesh invite --role worker --ttl 1h --uses 10
  ssh lab2 labmesh up --join "$(labmesh invite)"`,
		Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r := labmesh.Role(role); r != labmesh.RoleNode && r != labmesh.RoleWorker {
				return usagef("--role %s: it is node or worker", role)
			}
			if ttl < time.Second || ttl > api.InviteTTLMax {
				return usagef("--ttl %s: it is 1s to %s", ttl, api.InviteTTLMax)
			}
			if uses < 1 || uses > api.InviteUsesMax {
				return usagef("--uses %d: it is 1 to %d", uses, api.InviteUsesMax)
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			reply, err := c.Invite(cmd.Context(), api.InviteRequest{Role: labmesh.Role(role), TTLSeconds: ttl.Seconds(), Uses: uses})
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(reply)
			}
			_, err = fmt.Fprintln(a.out, reply.Invite)
			return err
		},
	}
	cmd.AddCommand(newInviteListCommand(a), newInviteRevokeCommand(a))
	flags := cmd.Flags()
	flags.StringVar(&role, "role", string(api.InviteRoleDefault), "what it lets in: `node`, which may vote, or worker, which only works")
	flags.DurationVar(&ttl, "ttl", api.InviteTTLDefault, "how long it holds")
	flags.IntVar(&uses, "uses", api.InviteUsesDefault, "how many machines may come in by it")
	return cmd
}

func newInviteListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the invites: who may come in by them, until when",
		Example: "  labmesh invite list",
		Args:    args(cobra.NoArgs, "it takes no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd.Context(), a, func(ctx context.Context, c *client.Client) (api.InviteList, error) {
				list, err := c.Invites(ctx)
				return api.InviteList{Invites: list}, err
			}, func(reply api.InviteList) error {
				t := newTable(a.out, "ID", "ROLE", "USES LEFT", "EXPIRES", "BY")
				for _, i := range reply.Invites {
					t.row(i.ID, i.Role, i.Uses, i.Expires.Local().Format(time.DateTime), i.By)
				}
				return t.flush()
			})
		},
	}
}

func newInviteRevokeCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "revoke ID…",
		Short:   "Revoke invites: nobody comes in by them any more; who is in stays in",
		Example: "  labmesh invite revoke 1f2e3d4c5b6a7988",
		Args:    args(cobra.MinimumNArgs(1), "it takes the ids of invites"),
		RunE: func(cmd *cobra.Command, words []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			for _, id := range words {
				if _, err := c.RevokeInvite(cmd.Context(), id); err != nil {
					return fmt.Errorf("revoke invite %s: %w", id, err)
				}
				a.note("Invite %s is revoked.", id)
			}
			return nil
		},
	}
}
