// Command labmesh is a node of a mesh and the tool to work with it: one file a
// subcommand, over the HTTP API like any other client. Results go to stdout and
// everything else to stderr; exit codes are in exit.go.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if code, asked := shutIn(os.Args); asked {
		os.Exit(code)
	}
	if code, asked := keepPrograms(os.Args, os.Stderr); asked {
		os.Exit(code)
	}
	if code, asked := measure(os.Args, os.Stdin, os.Stdout, os.Stderr); asked {
		os.Exit(code)
	}
	slacken(os.Args)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for an orderly end. From then on signals act as
	// they do by default, so that a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, newApp(os.Stdin, os.Stdout, os.Stderr, os.LookupEnv), os.Args[1:]))
}

// run runs one command line and returns its exit code.
func run(ctx context.Context, a *app, args []string) int {
	root := newRootCommand(a)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil && !a.began {
		err = usageError{err} // cobra did not like the command line
	}
	a.explain(err)
	return exitCode(err)
}
