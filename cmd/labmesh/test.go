package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"labmesh"
	"labmesh/client"
	"labmesh/suite"
	suiterun "labmesh/suite/run"
)

// Defaults and limits of `labmesh test`.
const (
	quarantineDefault  = ".labmesh-quarantine"
	quarantineBytesMax = 4 << 20
	testWithoutPaths   = "labmesh test: it takes test files before --, e.g. labmesh test tests/test_model.py"
	testPatience       = 2 * time.Minute // with a node that restarts
)

// testFlags are the flags of `labmesh test`.
type testFlags struct {
	taskFlags
	framework, command, keyword string
	retryFailed                 int
	failFast                    bool
	shards, quarantine, junit   string
	durations                   int
	bundle                      string
	noIgnore                    bool
}

func newTestCommand(a *app) *cobra.Command {
	f := &testFlags{}
	cmd := &cobra.Command{
		Use:   "test [flags] PATH… [-- ARGS…]",
		Short: "Run a suite of tests on all workers that fit, and sum up what failed",
		Long: `Run the tests of PATHs spread over all workers that fit: pytest, unittest or go test,
or with --command anything that writes JUnit XML. The git work tree that holds the
PATHs goes along (without what .gitignore and .labmeshignore name; outside git the
PATHs do), so a worker needs the interpreter and what the tests import from elsewhere.

One worker collects the tests. Then each gets as many as it will do in its share of
the time that is left, long ones first, so that all finish together: how long a test
takes is known from earlier runs. What a lost worker had not finished is run by
another; a test that crashes its interpreter is named, and the others go on.

PATH is a file, a directory, or one test as in tests/test_a.py::test_b. ARGS after --
go to the framework. A PATH that is a program and no test of these kinds is run as
one task, whose exit code is the verdict; the workers must see it at the same path.

Exit code: 0 all passed, also on a later try (flaky) or in quarantine; 1 some failed
or could not be collected; 2 no tests, or bad usage; 3 no node; 130 interrupted.`,
		Example: `  labmesh test tests/
  labmesh test tests -k "not slow" --retry-failed 2 --junit report.xml
  labmesh test tests/test_model.py::test_loss --timeout 30s --hardware cuda
  labmesh test ./pkg/... --fail-fast -- -race
  labmesh test --command 'mytool --junit {junit} {files}' checks/*.x`,
		Args: args(cobra.MinimumNArgs(1), "it takes test files, e.g. labmesh test tests/test_model.py"),
		RunE: func(cmd *cobra.Command, words []string) error {
			paths, rest := words, []string(nil)
			if n := cmd.ArgsLenAtDash(); n >= 0 {
				paths, rest = words[:n], words[n:]
			}
			return a.test(cmd.Context(), f, paths, rest)
		},
	}
	flags := cmd.Flags()
	f.bind(flags)
	flags.Lookup("timeout").Usage = "end a test that runs longer, and go on with the others (default never)"
	flags.Lookup("retries").Usage = "the same as --retry-failed; of a program: run it again this often"
	flags.IntVar(&f.retryFailed, "retry-failed", 0, "try tests that failed again this often, alone, the last time on another worker; one that passes then is flaky")
	flags.BoolVar(&f.failFast, "fail-fast", false, "stop at the first test that failed")
	flags.StringVarP(&f.keyword, "keyword", "k", "", "only tests that match this `EXPRESSION` of the framework (pytest -k, unittest -k, go -run)")
	flags.StringVar(&f.shards, "shards", "", "`N`: at most so many pieces at the same time; I/N: only part I of N, e.g. 2/5")
	flags.StringVar(&f.framework, "framework", "", "pytest, unittest or go (default by what is in the files)")
	flags.StringVar(&f.command, "command", "", "run files by this `COMMAND`, with {files} where their names go and {junit} where it writes its results")
	flags.StringVar(&f.quarantine, "quarantine", "", "`FILE` of tests whose failures are shown and not counted (default "+quarantineDefault+" if it is there)")
	flags.StringVar(&f.bundle, "bundle", "", "`DIRECTORY` that goes to the workers (default the git work tree that holds the PATHs, else the PATHs)")
	flags.BoolVar(&f.noIgnore, "no-ignore", false, "take along what .gitignore and .labmeshignore leave out, too")
	flags.StringVar(&f.junit, "junit", "", "write the results to this `FILE` as JUnit XML")
	flags.IntVar(&f.durations, "durations", 0, "show the `N` slowest tests")
	return cmd
}

// test runs what paths are: a suite, or programs.
func (a *app) test(ctx context.Context, f *testFlags, paths, rest []string) error {
	if len(paths) == 0 {
		return usagef("%s", testWithoutPaths)
	}
	if err := writable(f.junit); err != nil {
		return err
	}
	p, err := f.plan(paths, rest)
	if err != nil {
		return err
	}
	if p.programs {
		return a.testPrograms(ctx, f, paths, rest)
	}
	cfg, err := a.suiteConfig(f, p)
	if err != nil {
		return err
	}
	c, err := a.patientClient(testPatience)
	if err != nil {
		return err
	}
	defer c.Close()
	return a.runSuite(ctx, c, f, p, cfg)
}

// testPrograms runs each path as a task of its own.
func (a *app) testPrograms(ctx context.Context, f *testFlags, paths, rest []string) error {
	f.retries = max(f.retries, f.retryFailed)
	specs, err := f.tests(paths, rest, a.lookup)
	if err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	return a.runTests(ctx, c, specs, f.junit)
}

// suiteConfig is how to run a suite, but for its bundle.
func (a *app) suiteConfig(f *testFlags, p testPlan) (cfg suiterun.Config, err error) {
	id := uuid.New()
	cfg = suiterun.Config{
		ID: hex.EncodeToString(id[:5]), Name: orElse(f.name, p.name), Framework: p.framework, Paths: p.paths, Files: p.files,
		Select: p.choose, Args: p.args, Command: p.command,
		CaseTimeout: f.timeout, Retries: max(f.retryFailed, f.retries), FailFast: f.failFast, Note: a.note, Patience: testPatience,
	}
	if cfg.Retries < 0 || f.timeout < 0 || f.durations < 0 {
		return cfg, usagef("--retry-failed, --timeout and --durations: they are 0 or more")
	}
	if cfg.Shards, err = suite.ParseShards(f.shards); err != nil {
		return cfg, usagef("--shards: %w", err)
	}
	if cfg.Quarantine, err = a.readQuarantine(f.quarantine, p.root); err != nil {
		return cfg, err
	}
	task := f.taskFlags
	task.timeout, task.retries, task.backoff, task.name = 0, 0, 0, ""
	probe := map[string]any{"framework": "pytest", "collect": true} // the tasks have configs of their own
	if cfg.Task, err = task.spec(labmesh.Test, probe, a.lookup); err != nil {
		return cfg, err
	}
	return cfg, nil
}

// readQuarantine reads the list of quarantined tests: the file that was named, or the one of the suite.
func (a *app) readQuarantine(file, root string) (*suite.Quarantine, error) {
	named := file != ""
	if !named {
		file = filepath.Join(root, quarantineDefault)
	}
	info, err := os.Stat(file)
	switch {
	case os.IsNotExist(err) && !named:
		return nil, nil
	case err != nil:
		return nil, usagef("--quarantine: %w", err)
	case info.Size() > quarantineBytesMax:
		return nil, usagef("--quarantine %s: it is over %d MiB", file, quarantineBytesMax>>20)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, usagef("--quarantine: %w", err)
	}
	q, err := suite.ParseQuarantine(string(text))
	if err != nil {
		return nil, usagef("%s: %w", file, err)
	}
	for _, pattern := range q.Expired(a.now()) {
		a.note("labmesh: %s: the quarantine of %s is over: its failures count again", file, printable(pattern))
	}
	return q, nil
}

// runSuite takes the files to the mesh, runs the suite and reports.
func (a *app) runSuite(ctx context.Context, c *client.Client, f *testFlags, p testPlan, cfg suiterun.Config) error {
	id, stats, err := c.UploadBundle(ctx, p.root, client.BundleOptions{Paths: p.ship, NoIgnore: f.noIgnore})
	if err != nil {
		return fmt.Errorf("take %s to the mesh: %w", p.root, err)
	}
	a.note("labmesh: suite %s: %s, %d files of %s, %s sent", cfg.ID, cfg.Framework, stats.Files, p.root, bytesText(stats.SentBytes))
	cfg.Mesh, cfg.Task.Bundle = c, id
	screen := a.newScreen()
	cfg.Show, cfg.Note = screen.show, screen.note
	rep, err := suiterun.Run(ctx, cfg)
	screen.end()
	if f.junit != "" && (rep.Counts.Total > 0 || len(rep.Errors) > 0) {
		if werr := writeSuiteJUnit(f.junit, rep); werr != nil {
			return werr
		}
	}
	if rep.Counts.Total > 0 || len(rep.Errors) > 0 {
		if perr := a.reportSuite(rep, p, f.durations); perr != nil {
			return perr
		}
	}
	return suiteVerdict(rep, p, err)
}

// suiteVerdict is how `labmesh test` ends.
func suiteVerdict(rep *suiterun.Report, p testPlan, err error) error {
	switch {
	case rep.Interrupted:
		return exitError{exitInterrupted, fmt.Sprintf("interrupted: %d of %d tests had ended, the rest were cancelled", rep.Counts.Done(), rep.Counts.Total)}
	case err != nil:
		return err
	case rep.Counts.Total == 0 && len(rep.Errors) == 0:
		return usagef("no tests were found in %s (%s): check the paths and the selection", p.name, p.framework)
	case !rep.OK():
		return exitError{exitFailed, ""}
	}
	return nil
}

func bytesText(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
