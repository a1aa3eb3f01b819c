package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
)

func newSecretCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret",
		Short: "Keep values for tasks: passwords, tokens, keys",
		Long: `Keep named values for the tasks that ask for them with --secret NAME, or with
"secrets" in their description. An attempt finds each as a variable of its
environment, and what it prints is rid of them. Nobody is ever shown a value again;
what you should know of how it is kept is in docs/tasks.md. It takes an admin key.`,
		Example: `  labmesh secret set HF_TOKEN            # asks for it, or reads it from a pipe
  labmesh run --secret HF_TOKEN -- python3 fetch.py
  labmesh secret list`,
		Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSecretSetCommand(a), newSecretListCommand(a), newSecretRemoveCommand(a), newSecretRotateCommand(a))
	return cmd
}

func newSecretSetCommand(a *app) *cobra.Command {
	var file string
	var projects []string
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Set a secret, in place of any by the same name",
		Long: `Set a secret. Its value is read from stdin, without the line end that it may end in;
on a terminal it is asked for and not shown. It is never an argument: those are for
all on the machine to see. With --from-file it is the file as it is.

Submitters, whose keys are held to a project, may ask for it only where --project
names theirs; admins and operators always may.`,
		Example: `  labmesh secret set HF_TOKEN
  pass show lab/token | labmesh secret set LAB_TOKEN
  labmesh secret set SSH_KEY --from-file ~/.ssh/lab_ed25519`,
		Args: args(cobra.ExactArgs(1), "it takes the name of the secret, and its value from stdin or --from-file"),
		RunE: func(cmd *cobra.Command, words []string) error {
			name := words[0]
			if strings.Contains(name, "=") {
				return usagef("secret set takes a name alone: a value in the arguments is for all on this machine to see; pass it on stdin, and choose another value")
			}
			if err := api.ValidateSecretName(name); err != nil {
				return usageError{err}
			}
			value, err := a.readSecret(name, file)
			if err != nil {
				return err
			}
			if err := api.ValidateSecret(name, value); err != nil {
				return usageError{err}
			}
			if len(value) < labmesh.SecretBytesHidden {
				a.note("A value of less than %d bytes is not hidden in what tasks print.", labmesh.SecretBytesHidden)
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.SetSecret(cmd.Context(), name, value, projects...); err != nil {
				return err
			}
			a.note("Secret %s is set.", name)
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "from-file", "", "read the value from this `FILE`, as it is")
	cmd.Flags().StringArrayVar(&projects, "project", nil, "let keys of this `PROJECT` ask for it; may be given several times")
	return cmd
}

// readSecret reads the value of a secret from file, or else from stdin.
func (a *app) readSecret(name, file string) (string, error) {
	in, from := a.in, "stdin"
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return "", usagef("--from-file %s: %w", file, err)
		}
		defer f.Close() // it is only read
		in, from = f, file
	} else if f, ok := a.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(a.err, "Value of %s (not shown): ", name)
		value, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.err)
		if err != nil {
			return "", usagef("read the value from the terminal: %w", err)
		}
		return string(value), nil
	}
	data, err := io.ReadAll(io.LimitReader(in, labmesh.SecretBytesMax+3))
	if err != nil {
		return "", usagef("read the value from %s: %w", from, err)
	}
	value := string(data)
	if file == "" {
		value = strings.TrimSuffix(strings.TrimSuffix(value, "\n"), "\r")
	}
	return value, nil
}

func newSecretListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the secrets by name, and who set them when",
		Example: "  labmesh secret list\n  labmesh --json secret list",
		Args:    args(cobra.NoArgs, "it takes no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd.Context(), a, func(ctx context.Context, c *client.Client) (api.SecretList, error) {
				list, err := c.Secrets(ctx)
				return api.SecretList{Secrets: list}, err
			}, func(reply api.SecretList) error {
				t := newTable(a.out, "NAME", "SET", "BY", "PROJECTS")
				for _, s := range reply.Secrets {
					t.row(s.Name, ago(a.now(), s.Put.Time), s.By, strings.Join(s.Projects, ", "))
				}
				return t.flush()
			})
		},
	}
}

func newSecretRemoveCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rm NAME",
		Aliases: []string{"remove"},
		Short:   "Remove a secret; attempts that have it keep it until they end",
		Example: "  labmesh secret rm HF_TOKEN",
		Args:    args(cobra.ExactArgs(1), "it takes the name of a secret"),
		RunE: func(cmd *cobra.Command, words []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.RemoveSecret(cmd.Context(), words[0]); err != nil {
				return err
			}
			a.note("Secret %s is removed.", words[0])
			return nil
		},
	}
}

func newSecretRotateCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "rotate",
		Short: "Seal all secrets by a new key of the mesh",
		Long: `Make a new key for the mesh, which a majority of the voters must take, and seal by
it all secrets, the keys of tokens and those of signatures. Nothing stops meanwhile. The old
key is kept until an hour after nothing is sealed by it any more. It takes an admin key.

Do it when a replica's disk or a backup may have been read by somebody; then set
anew, too, the secrets themselves: who had the key may have read them.`,
		Example: "  labmesh secret rotate",
		Args:    args(cobra.NoArgs, "it takes no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			id, err := c.RotateSeal(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(api.SealReply{Key: id, Message: "Secrets are sealed anew"})
			}
			a.note("Secrets are sealed by the new key %s.", id)
			return nil
		},
	}
}
