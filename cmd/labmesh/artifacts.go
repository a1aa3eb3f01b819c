package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
)

// downloadsMax is how many files are fetched at the same time.
const downloadsMax = 4

func newArtifactsCommand(a *app) *cobra.Command {
	var dir string
	var attempt int
	cmd := &cobra.Command{
		Use:   "artifacts ID [NAME…]",
		Short: "List or download the files that a task left",
		Long: `List the files that a task's newest attempt left: those that match the task's
artifacts, and below .labmesh/ its complete output and what its runner keeps. With
-o download them all into a directory, or with NAMEs those: a path of the list, a
directory in it, or a pattern such as '**/*.xml'. With -o - one file goes to stdout.
Any node answers, whoever ran the task.`,
		Example: `  labmesh artifacts "$(labmesh run --detach --artifact '*.txt' -- sh -c 'echo hello > a.txt')"
  labmesh artifacts ID -o results
  labmesh artifacts ID '**/*.xml' -o results
  labmesh artifacts ID .labmesh/stdout -o -`,
		Args: args(cobra.MinimumNArgs(1), "it takes a task id (labmesh tasks lists them)"),
		RunE: func(cmd *cobra.Command, words []string) error {
			if attempt < 0 {
				return usagef("--attempt %d: attempts are numbered from 1", attempt)
			}
			if len(words) > 1 && dir == "" {
				dir = "."
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			return named(a.artifacts(cmd.Context(), c, labmesh.TaskID(words[0]), attempt, words[1:], dir), words[0])
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&dir, "output", "o", "", "download into this `DIRECTORY`, or with - one file to stdout")
	flags.IntVar(&attempt, "attempt", 0, "of this attempt (default the newest that left any)")
	return cmd
}

// artifacts lists the files, or downloads those that are named where dir says so.
func (a *app) artifacts(ctx context.Context, c *client.Client, id labmesh.TaskID, attempt int, names []string, dir string) error {
	list, err := c.ArtifactsOf(ctx, id, attempt)
	if err != nil {
		return err
	}
	chosen, err := choose(list.Files, names)
	if err != nil {
		return err
	}
	switch {
	case dir == "-":
		return a.printArtifact(ctx, c, list, chosen)
	case dir == "" && a.json:
		return a.printJSON(list)
	case dir == "":
		return a.listArtifacts(list)
	}
	if err := a.download(ctx, c, list, chosen, dir); err != nil {
		return err
	}
	if a.json {
		list.Files = chosen
		return a.printJSON(list)
	}
	return nil
}

// choose picks the files that names mean, all of them when there are none.
func choose(files []api.Artifact, names []string) ([]api.Artifact, error) {
	if len(names) == 0 {
		return files, nil
	}
	picked := map[string]bool{}
	for _, name := range names {
		any := false
		for _, f := range files {
			match, err := doublestar.Match(name, f.Path)
			if err != nil {
				return nil, usagef("%s is no pattern: check its brackets and braces", name)
			}
			if match || f.Path == name || strings.HasPrefix(f.Path, strings.TrimSuffix(name, "/")+"/") {
				picked[f.Path], any = true, true
			}
		}
		if !any {
			return nil, usagef("it left no %q: without names labmesh artifacts lists what it left", name)
		}
	}
	out := files[:0:0]
	for _, f := range files {
		if picked[f.Path] {
			out = append(out, f)
		}
	}
	return out, nil
}

func (a *app) listArtifacts(list api.Artifacts) error {
	if len(list.Files) == 0 {
		a.note("%s left no files: name those to keep with --artifact, or artifacts in the task", list.Task)
		return nil
	}
	t := newTable(a.out, "SIZE", "PATH")
	for _, f := range list.Files {
		size := humanize.IBytes(uint64(f.Bytes))
		name := printable(f.Path)
		switch {
		case f.Link != "":
			size, name = "link", name+" -> "+printable(f.Link)
		case f.Directory:
			size, name = "-", name+"/"
		}
		t.line([]string{size, name})
	}
	return t.flush()
}

// printArtifact copies one file to stdout.
func (a *app) printArtifact(ctx context.Context, c *client.Client, list api.Artifacts, chosen []api.Artifact) error {
	if len(chosen) != 1 || chosen[0].Link != "" || chosen[0].Directory {
		return usagef("-o - takes one file, and %d were chosen: name one of those that labmesh artifacts %s lists", len(chosen), list.Task)
	}
	return fetchArtifact(ctx, c, list, chosen[0], a.out)
}

// download writes files below dir. Each appears whole or not at all, and nothing
// is written anywhere else, whatever their names are.
func (a *app) download(ctx context.Context, c *client.Client, list api.Artifacts, chosen []api.Artifact, dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return usageError{err}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return usageError{err}
	}
	defer root.Close()
	var total, done int64
	for _, f := range chosen {
		total += f.Bytes
	}
	var bar *progressbar.ProgressBar
	if isTerminal(a.err) {
		bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(a.err), progressbar.OptionSetDescription("fetching"),
			progressbar.OptionShowBytes(true), progressbar.OptionThrottle(progressEvery), progressbar.OptionClearOnFinish())
		defer bar.Clear() //nolint:errcheck // a bar that cannot be drawn is no reason to stop
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(downloadsMax)
	for _, f := range chosen {
		g.Go(func() error {
			if err := save(ctx, c, list, f, root); err != nil {
				return fmt.Errorf("%s: %w", filepath.Join(dir, f.Path), err)
			}
			if bar != nil {
				_ = bar.Set64(atomic.AddInt64(&done, f.Bytes)) // as above
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	a.note("%d files, %s, are in %s", len(chosen), humanize.IBytes(uint64(total)), dir)
	return nil
}

// save writes one entry of the list below root.
func save(ctx context.Context, c *client.Client, list api.Artifacts, f api.Artifact, root *os.Root) error {
	name := filepath.FromSlash(f.Path)
	if !filepath.IsLocal(name) {
		return labmesh.Refuse(labmesh.Invalid, "the node names a file outside the directory")
	}
	if f.Directory {
		return root.MkdirAll(name, 0o777)
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return err
	}
	part := name + ".part"
	if err := root.RemoveAll(part); err != nil {
		return err
	}
	if f.Link != "" {
		if !filepath.IsLocal(path.Join(path.Dir(f.Path), f.Link)) {
			return labmesh.Refuse(labmesh.Invalid, "the node names a link out of the directory")
		}
		if err := root.Symlink(filepath.FromSlash(f.Link), part); err != nil {
			return err
		}
		return root.Rename(part, name)
	}
	mode := os.FileMode(0o666)
	if f.Executable {
		mode = 0o777
	}
	file, err := root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	err = errors.Join(fetchArtifact(ctx, c, list, f, file), file.Close())
	if err == nil {
		return root.Rename(part, name)
	}
	return errors.Join(err, root.Remove(part))
}

// fetchArtifact copies the bytes of a file to w.
func fetchArtifact(ctx context.Context, c *client.Client, list api.Artifacts, f api.Artifact, w io.Writer) error {
	r, err := c.ArtifactOf(ctx, list.Task, list.Attempt, f.Path)
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(w, r)
	if err == nil && n != f.Bytes {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("%d of %d bytes came: %w", n, f.Bytes, err)
	}
	return nil
}
