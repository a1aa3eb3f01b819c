package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
)

// tellAfter is how long an upload takes that is worth a word.
const tellAfter = 2 * time.Second

// bundleOf is the bundle that a word names: a directory here, which is
// uploaded, or the id of one that was uploaded before.
func (a *app) bundleOf(ctx context.Context, c *client.Client, word string) (id string, err error) {
	if err := checkBundle(word); err != nil {
		return "", err
	}
	if api.ValidContentID(word) {
		return word, nil
	}
	return a.upload(ctx, c, word)
}

// checkBundle refuses a word that names no bundle, before anything is asked of a node.
func checkBundle(word string) error {
	info, err := os.Stat(word)
	switch {
	case api.ValidContentID(word) || err == nil && info.IsDir():
		return nil
	case err == nil:
		return usagef("the bundle %s is a file: name the directory to ship", word)
	}
	return usagef("the bundle %q is neither a directory here nor the id of one that was uploaded: %w", word, err)
}

// upload packs a directory and sends what the mesh lacks of it, with its
// progress on a terminal.
func (a *app) upload(ctx context.Context, c *client.Client, dir string) (id string, err error) {
	began := a.now()
	opts := client.BundleOptions{}
	if isTerminal(a.err) {
		bar := progressbar.NewOptions64(-1,
			progressbar.OptionSetWriter(a.err), progressbar.OptionSetDescription("packing "+printable(filepath.Base(dir))),
			progressbar.OptionShowBytes(true), progressbar.OptionThrottle(progressEvery), progressbar.OptionClearOnFinish())
		opts.Progress = func(s client.BundleStats) {
			bar.Describe(fmt.Sprintf("packing %s, %s sent", printable(filepath.Base(dir)), humanize.IBytes(uint64(s.SentBytes))))
			_ = bar.Set64(s.Bytes) // a bar that cannot be drawn is no reason to stop
		}
		defer bar.Clear() //nolint:errcheck // as above
	}
	id, stats, err := c.UploadBundle(ctx, dir, opts)
	if err != nil {
		return "", err
	}
	if isTerminal(a.err) || a.now().Sub(began) > tellAfter {
		a.note("labmesh: bundle %.12s…: %d files, %s, of which %s were sent", id, stats.Files, humanize.IBytes(uint64(stats.Bytes)), humanize.IBytes(uint64(stats.SentBytes)))
	}
	return id, nil
}

// uploadAll uploads the directories that tasks name as their bundles, each once.
func (a *app) uploadAll(ctx context.Context, c *client.Client, specs []labmesh.Spec) error {
	ids := map[string]string{}
	for i := range specs {
		word := specs[i].Bundle
		if word == "" {
			continue
		}
		if ids[word] == "" {
			id, err := a.bundleOf(ctx, c, word)
			if err != nil {
				return err
			}
			ids[word] = id
		}
		specs[i].Bundle = ids[word]
	}
	return nil
}
