package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
)

func newKeyCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make, list and revoke API keys",
		Long: `Make, list and revoke API keys. What the bearer of a key may do follows from its
role; docs/security.md has the table:

  admin      all of it: keys, invites, secrets, bans, backups
  operator   all that can be done with tasks and workers, in all projects
  submitter  the tasks of one project, and no others
  observer   sees everything, changes nothing
  worker     a light worker

It takes an admin key, such as the one that the node of this machine keeps for you.`,
		Example: `  labmesh key create --role submitter --project vision --name ci --expires 90d
  labmesh key list
  labmesh key revoke 1f2e3d4c`,
		Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeyCreateCommand(a), newKeyListCommand(a), newKeyRevokeCommand(a))
	return cmd
}

func newKeyCreateCommand(a *app) *cobra.Command {
	var req api.KeyRequest
	var role, expires string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make an API key and print it, this once",
		Long: `Make an API key and print it, alone on stdout. The mesh keeps a hash of it: nobody
is shown the key again. Pass it on like a password, in LABMESH_API_KEY or a file of
yours; an argument is for all on a machine to see.`,
		Example: `  labmesh key create --role submitter --project vision --name ci --expires 90d
  (umask 077; labmesh key create --role observer --name grafana > grafana.key)`,
		Args: args(cobra.NoArgs, "it takes no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			req.Role = labmesh.Role(role)
			if expires != "" {
				ttl, err := parseDays(expires)
				if err != nil {
					return usagef("--expires %s: it is how long the key lasts, like 36h or 90d", expires)
				}
				req.TTLSeconds = ttl.Seconds()
			}
			if err := api.ValidateKey(&req); err != nil {
				return usageError{err}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			reply, err := c.CreateKey(cmd.Context(), req)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(reply)
			}
			a.note("Key %s with the role %s. It is shown this once:", reply.ID, reply.Role)
			_, err = fmt.Fprintln(a.out, reply.APIKey)
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&role, "role", "", "what its bearer may do: admin, operator, submitter, observer or worker (`role`; needed)")
	flags.StringVar(&req.Name, "name", "", "what people call it: a `name`")
	flags.StringVar(&req.Project, "project", "", "the `project` that what is submitted with it is in; a submitter sees no other")
	flags.StringVar(&expires, "expires", "", "how `long` it lasts, like 36h or 90d; for ever by default")
	flags.BoolVar(&req.RequireSigned, "require-signed", false, "refuse what is not signed with it")
	return cmd
}

// parseDays reads a duration, also in days. It is more than none.
func parseDays(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil || !(n > 0 && n <= api.KeyTTLMax.Hours()/24) {
			return 0, fmt.Errorf("%q is no number of days", days)
		}
		return time.Duration(n * 24 * float64(time.Hour)), nil
	}
	d, err := time.ParseDuration(s)
	if err == nil && d <= 0 {
		err = fmt.Errorf("%s is not more than none", d)
	}
	return d, err
}

func newKeyListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the API keys: what for, whose, until when, last used when",
		Example: "  labmesh key list\n  labmesh --json key list",
		Args:    args(cobra.NoArgs, "it takes no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd.Context(), a, func(ctx context.Context, c *client.Client) (api.KeyList, error) {
				list, err := c.Keys(ctx)
				return api.KeyList{Keys: list}, err
			}, func(reply api.KeyList) error {
				t := newTable(a.out, "ID", "ROLE", "PROJECT", "NAME", "STATE", "CREATED", "LAST USED", "BY")
				for _, k := range reply.Keys {
					t.row(k.ID, k.Role, k.Project, k.Name, keyState(&k, a.now()), ago(a.now(), k.Created.Time), ago(a.now(), k.LastUsed.Time), k.By)
				}
				return t.flush()
			})
		},
	}
}

// keyState says in a few words what a key is still good for.
func keyState(k *api.Key, now time.Time) string {
	signed := ""
	if k.RequireSigned {
		signed = ", signed"
	}
	switch {
	case !k.Revoked.IsZero():
		return "revoked " + ago(now, k.Revoked.Time)
	case k.Expires.IsZero():
		return "good" + signed
	case now.Before(k.Expires.Time):
		return "good until " + k.Expires.Local().Format(time.DateTime) + signed
	}
	return "expired " + ago(now, k.Expires.Time)
}

func newKeyRevokeCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID…",
		Short: "Revoke API keys: they open nothing any more, and tokens made with them neither",
		Long: `Revoke API keys, named by their id as in labmesh key list. It holds on all nodes at
once, also for tokens that were made with the key. The last admin key cannot be
revoked: make another first.`,
		Example: "  labmesh key revoke 1f2e3d4c",
		Args:    args(cobra.MinimumNArgs(1), "it takes the ids of keys"),
		RunE: func(cmd *cobra.Command, words []string) error {
			for _, id := range words {
				if strings.HasPrefix(id, "lmk_") {
					return usagef("key revoke takes the id of a key, the part between lmk_ and the next _; what is in the arguments is for all on this machine to see")
				}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			for _, id := range words {
				if _, err := c.RevokeKey(cmd.Context(), id); err != nil {
					return fmt.Errorf("revoke key %s: %w", id, err)
				}
				a.note("Key %s is revoked.", id)
			}
			return nil
		},
	}
}

func newTokenCommand(a *app) *cobra.Command {
	var worker string
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make a JSON web token that lasts an hour",
		Long: `Make a JSON web token and print it, alone on stdout. For an hour it may do what your
API key may, on every node, as "Authorization: Bearer TOKEN"; it ends earlier when
the key is revoked. With --worker it is for that light worker and does no more
than such a worker may. It takes the key itself: a token makes no tokens.`,
		Example: `  labmesh token
  curl -H "Authorization: Bearer $(labmesh token)" http://127.0.0.1:8080/status
  labmesh token --worker bench-rig-3`,
		Args: args(cobra.NoArgs, "it takes no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if worker != "" && !api.ValidID(worker) {
				return usagef("--worker %s: an id is 1 to %d of A-Z a-z 0-9 . _ : -", worker, api.IDBytesMax)
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			reply, err := c.Token(cmd.Context(), labmesh.WorkerID(worker))
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(reply)
			}
			_, err = fmt.Fprintln(a.out, reply.Token)
			return err
		},
	}
	cmd.Flags().StringVar(&worker, "worker", "", "make it for the light worker with this `id`; takes an admin's or a worker's key")
	return cmd
}
