package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// subcommands lists every command, in the order of the help text.
func subcommands(a *app) []*cobra.Command {
	return []*cobra.Command{
		newUpCommand(a),
		newInviteCommand(a),
		newStatusCommand(a),
		newWorkersCommand(a),
		newWorkerCommand(a),
		newDoctorCommand(a),
		newRunCommand(a),
		newTestCommand(a),
		newBenchCommand(a),
		newSubmitCommand(a),
		newTasksCommand(a),
		newTaskCommand(a),
		newWhyCommand(a),
		newCancelCommand(a),
		newLogsCommand(a),
		newArtifactsCommand(a),
		newSQLCommand(a),
		newCompareCommand(a),
		newTrendCommand(a),
		newKeyCommand(a),
		newTokenCommand(a),
		newSecretCommand(a), newAuditCommand(a),
		newDrainCommand(a),
		newUndrainCommand(a),
		newBanCommand(a),
		newBackupCommand(a),
		newRestoreCommand(a),
		newRecoverCommand(a),
		newVersionCommand(a),
		newInternalCommand(a),
	}
}

// newRootCommand is the whole command tree. Flags of the root are the global
// ones; each command sees them, and every flag also in the environment.
func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "labmesh",
		Short: "One fault-tolerant test and benchmark mesh from the machines of a lab",
		Long: `labmesh turns the odd machines of a lab into one fault-tolerant mesh that runs
tests and benchmarks and keeps every result in SQL.

Results go to stdout, everything else to stderr. Every flag is also in the
environment as LABMESH_<NAME>, e.g. LABMESH_API_KEY for --api-key.

Exit codes: 0 done, 1 the work failed (run: the program's own code), 2 bad usage
or input, 3 no node or no leader, 4 not permitted, 124 timed out waiting.`,
		Example: `  labmesh up                             # this machine becomes a mesh of one
  labmesh run -- echo hello              # run a program on it
  labmesh invite                         # what the next machine passes to up --join`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		SuggestionsMinimumDistance: 2,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := flagsFromEnv(cmd, a.lookup); err != nil {
				return err
			}
			a.began = true
			return nil
		},
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	flags := root.PersistentFlags()
	flags.StringVar(&a.addr, "addr", "", "talk to the node at this `URL` instead of this machine's")
	flags.StringVar(&a.key, "api-key", "", "the API `key` to show it")
	flags.StringVar(&a.dataDir, "data-dir", "", "`directory` of this machine's node (default ~/.local/share/labmesh)")
	flags.BoolVar(&a.json, "json", false, "print results as JSON")
	flags.BoolVar(&a.noColor, "no-color", false, "no colours, also on a terminal")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath())
	})
	root.AddCommand(subcommands(a)...)
	completion(root)
	return root
}

// completion adds cobra's command of that name, with examples and without its
// patience for words that it does not know.
func completion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Example = "  source <(labmesh completion bash)\n  labmesh completion zsh > _labmesh"
			c.Args = noCommand
			c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
			for _, shell := range c.Commands() {
				shell.Example = "  labmesh completion " + shell.Name()
			}
		}
	}
}

// noCommand refuses words after a command that only has subcommands.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	message := fmt.Sprintf("there is no command %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		message += ": did you mean " + strings.Join(near, " or ") + "?"
	}
	return fmt.Errorf("%s; see `%s --help`", message, cmd.CommandPath())
}

// args wraps a check on positional arguments so that its error says how the
// command is called.
func args(check cobra.PositionalArgs, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if check(cmd, given) == nil {
			return nil
		}
		return fmt.Errorf("%s: %s; see `%s --help`", cmd.Name(), want, cmd.CommandPath())
	}
}
