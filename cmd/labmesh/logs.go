package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"labmesh"
	"labmesh/client"
)

func newLogsCommand(a *app) *cobra.Command {
	var stream string
	var follow bool
	var attempt int
	cmd := &cobra.Command{
		Use:   "logs [-f] ID",
		Short: "Print what a task printed, or follow it live",
		Long: `Print the output of a task's newest attempt: its stdout to stdout and its stderr
to stderr, or one of them with --stream. With -f follow it until the task ends,
also across lost connections.`,
		Example: `  labmesh logs "$(labmesh run --detach -- echo hello)"
  labmesh logs -f "$(labmesh run --detach -- ping -c 5 127.0.0.1)"`,
		Args: args(cobra.ExactArgs(1), "it takes one task id (labmesh tasks lists them)"),
		RunE: func(cmd *cobra.Command, ids []string) error {
			if stream != "" && stream != client.Stdout && stream != client.Stderr {
				return usagef("--stream %s: it is stdout or stderr", stream)
			}
			if attempt < 0 {
				return usagef("--attempt %d: attempts are numbered from 1", attempt)
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			q := client.LogQuery{Stream: stream, Attempt: attempt, Follow: follow}
			return named(a.copyLogs(cmd.Context(), c, labmesh.TaskID(ids[0]), q), ids[0])
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&follow, "follow", "f", false, "wait for more until the task ends")
	flags.StringVar(&stream, "stream", "", "only this `STREAM`, stdout or stderr, to stdout")
	flags.IntVar(&attempt, "attempt", 0, "of this attempt (default the newest)")
	return cmd
}

// copyLogs copies one stream of a task to stdout or, when q names none, each
// to where it belongs.
func (a *app) copyLogs(ctx context.Context, c *client.Client, id labmesh.TaskID, q client.LogQuery) error {
	if q.Stream != "" {
		return copyStream(ctx, c, id, q, a.out)
	}
	g, ctx := errgroup.WithContext(ctx)
	for stream, w := range map[string]io.Writer{client.Stdout: a.out, client.Stderr: a.err} {
		one := q
		one.Stream = stream
		g.Go(func() error { return copyStream(ctx, c, id, one, w) })
	}
	return g.Wait()
}

func copyStream(ctx context.Context, c *client.Client, id labmesh.TaskID, q client.LogQuery, w io.Writer) error {
	r, err := c.Logs(ctx, id, q)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("copy the %s of %s: %w", q.Stream, id, err)
	}
	return nil
}
