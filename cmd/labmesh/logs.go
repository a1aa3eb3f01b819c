package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
)

func newLogsCommand(a *app) *cobra.Command {
	var stream, last string
	var follow bool
	var attempt int
	cmd := &cobra.Command{
		Use:   "logs [-f] ID",
		Short: "Print what a task printed, or follow it live",
		Long: `Print the output of a task's newest attempt: its stdout to stdout and its stderr
to stderr, or one of them with --stream. With -f follow it until the task ends, over
further attempts, lost connections and lost machines; it may be asked for as soon
as the task is submitted. Ctrl-C ends the following, and not the task.

Of each stream the first and the last 8 MiB are kept. A line in brackets stands
where something was left out.`,
		Example: `  labmesh logs "$(labmesh run --detach -- echo hello)"
  labmesh logs -f "$(labmesh run --detach -- ping -c 5 127.0.0.1)"
  labmesh logs -f --tail 10 "$(labmesh run --detach -- ping -c 5 127.0.0.1)"
  labmesh logs --tail 4K --stream stderr "$(labmesh run --detach -- ls /nowhere)"`,
		Args: args(cobra.ExactArgs(1), "it takes one task id (labmesh tasks lists them)"),
		RunE: func(cmd *cobra.Command, ids []string) error {
			if stream != "" && stream != client.Stdout && stream != client.Stderr {
				return usagef("--stream %s: it is stdout or stderr", stream)
			}
			if attempt < 0 {
				return usagef("--attempt %d: attempts are numbered from 1", attempt)
			}
			end, err := parseEnd(last)
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			q := client.LogQuery{Stream: stream, Attempt: attempt, Follow: follow}
			err = a.copyLogs(cmd.Context(), c, labmesh.TaskID(ids[0]), q, end)
			if err != nil && cmd.Context().Err() != nil {
				return exitError{exitInterrupted, ""} // the task goes on
			}
			return named(err, ids[0])
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&follow, "follow", "f", false, "wait for more until the task ends")
	flags.StringVar(&stream, "stream", "", "only this `STREAM`, stdout or stderr, to stdout")
	flags.IntVar(&attempt, "attempt", 0, "of this attempt (default the newest)")
	flags.StringVar(&last, "tail", "", "only the last `N` lines of each stream or, as in 4K or 1M, bytes, and what follows")
	return cmd
}

// copyLogs copies one stream of a task to stdout or, when q names none, each
// to where it belongs.
func (a *app) copyLogs(ctx context.Context, c *client.Client, id labmesh.TaskID, q client.LogQuery, end *logEnd) error {
	said := &notes{to: a.err}
	if q.Stream != "" {
		return copyStream(ctx, c, id, q, end, a.out, said)
	}
	g, ctx := errgroup.WithContext(ctx)
	for stream, w := range map[string]io.Writer{client.Stdout: a.out, client.Stderr: a.err} {
		one := q
		one.Stream = stream
		g.Go(func() error { return copyStream(ctx, c, id, one, end, w, said) })
	}
	return g.Wait()
}

// copyStream copies one stream of a task to w, what is to be said about it to
// said, and of what was printed before only the end if one is given.
func copyStream(ctx context.Context, c *client.Client, id labmesh.TaskID, q client.LogQuery, end *logEnd, w io.Writer, said *notes) error {
	if end != nil {
		after, err := copyEnd(ctx, c, id, q, *end, w, said)
		if err != nil || !q.Follow {
			return err
		}
		q.After = after
	}
	_, err := copyFrames(ctx, c, id, q, w, said)
	return err
}

// copyEnd copies the end of what there is of a stream now, and says where that was.
func copyEnd(ctx context.Context, c *client.Client, id labmesh.TaskID, q client.LogQuery, end logEnd, w io.Writer, said *notes) (api.LogPosition, error) {
	q.Follow = false
	var kept lastOf
	kept.end = end
	after, err := copyFrames(ctx, c, id, q, &kept, said)
	if err == nil {
		_, err = w.Write(kept.bytes())
	}
	return after, err
}

func copyFrames(ctx context.Context, c *client.Client, id labmesh.TaskID, q client.LogQuery, w io.Writer, said *notes) (api.LogPosition, error) {
	r, err := c.Logs(ctx, id, q)
	if err != nil {
		return q.After, err
	}
	defer r.Close()
	for {
		f, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return r.Position(), nil
		case err != nil:
			return r.Position(), fmt.Errorf("copy the %s of %s: %w", q.Stream, id, err)
		case f.Kind == api.LogBegin || f.Kind == api.LogNote:
			said.say(f)
			continue
		}
		if _, err := w.Write(f.Text()); err != nil {
			return r.Position(), fmt.Errorf("copy the %s of %s: %w", q.Stream, id, err)
		}
	}
}

// notes says what is to be said about output, which may be true of both streams, once.
type notes struct {
	to io.Writer

	mu   sync.Mutex
	said map[string]bool
}

func (n *notes) say(f api.LogFrame) {
	n.mu.Lock()
	defer n.mu.Unlock()
	text := strings.TrimSpace(printable(string(f.Text())))
	if n.said == nil {
		n.said = make(map[string]bool)
	}
	if !n.said[text] {
		n.said[text] = true
		fmt.Fprintln(n.to, text)
	}
}
