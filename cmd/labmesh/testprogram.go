package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
)

// Limits of tests that are programs.
const (
	fetchersMax   = 8  // results asked for at the same time
	failureLines  = 40 // of a failure's output that are shown
	cancelersMax  = 8
	testNameChars = api.NameCharsMax
)

type testConfig struct {
	File string   `json:"test_file"`
	Args []string `json:"test_args,omitempty"`
}

// tests makes one test task of each path.
func (f *taskFlags) tests(paths, rest []string, lookup func(string) (string, bool)) ([]labmesh.Spec, error) {
	if len(paths) == 0 {
		return nil, usagef("%s", testWithoutPaths)
	}
	specs := make([]labmesh.Spec, len(paths))
	for i, p := range paths {
		file, node, isNode := strings.Cut(p, "::")
		abs, err := filepath.Abs(file)
		if err != nil {
			return nil, fmt.Errorf("find %s: %w", file, err)
		}
		if _, err := os.Stat(abs); err != nil {
			return nil, usagef("there is no test file %s: %w", p, err)
		}
		if isNode {
			abs += "::" + node
		}
		one := *f
		one.name = shorten(printable(orElse(f.name, p)), testNameChars)
		if specs[i], err = one.spec(labmesh.Test, testConfig{abs, rest}, lookup); err != nil {
			return nil, err
		}
	}
	return specs, nil
}

// writable refuses a report that could not be written, before the work is done.
func writable(file string) error {
	if file == "" {
		return nil
	}
	if info, err := os.Stat(filepath.Dir(file)); err != nil || !info.IsDir() {
		return usagef("--junit %s: there is no directory %s", file, filepath.Dir(file))
	}
	return nil
}

// runTests submits the tests, follows them and reports. When ctx ends, by
// Ctrl-C, it cancels what has not ended.
func (a *app) runTests(ctx context.Context, c *client.Client, specs []labmesh.Spec, junit string) error {
	watch := c.Watch(ctx)
	defer watch.Close()
	var reply api.BatchReply
	err := unhurried(ctx, func(ctx context.Context) (err error) {
		reply, err = a.submitSpecs(ctx, c, specs)
		return err
	})
	if err != nil {
		cancelAll(ctx, c, reply.IDs)
		return err
	}
	verdicts, err := a.await(ctx, watch, reply.IDs, reply.Created < len(specs), 0, "tests")
	if err != nil {
		if ctx.Err() != nil {
			cancelAll(ctx, c, reply.IDs)
			return exitError{exitInterrupted, fmt.Sprintf("interrupted: %d of %d tests had ended, the rest were cancelled", len(verdicts), len(specs))}
		}
		return err
	}
	tests, err := fetchAll(ctx, c, reply.IDs)
	if err != nil {
		return err
	}
	if junit != "" {
		if err := writeJUnit(junit, tests); err != nil {
			return err
		}
	}
	return a.reportTests(tests)
}

// cancelAll cancels tasks, also when ctx has ended. Those that ended stay as they are.
func cancelAll(ctx context.Context, c *client.Client, ids []labmesh.TaskID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), orderlyEnd)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(cancelersMax)
	for _, id := range ids {
		g.Go(func() error {
			_, err := c.Cancel(ctx, id, "interrupted")
			if r := labmesh.ReasonOf(err); r == labmesh.Unavailable || r == labmesh.Denied {
				return err
			}
			return nil
		})
	}
	_ = g.Wait() // the command ends with an error of its own
}

func fetchAll(ctx context.Context, c *client.Client, ids []labmesh.TaskID) ([]api.TaskDetail, error) {
	tests := make([]api.TaskDetail, len(ids))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(fetchersMax)
	var mu sync.Mutex
	for i, id := range ids {
		g.Go(func() error {
			t, err := c.Task(ctx, id)
			mu.Lock()
			defer mu.Unlock()
			tests[i] = t
			return err
		})
	}
	return tests, g.Wait()
}

// testResult is what the runner of a test hands in, as far as it is shown.
type testResult struct {
	Runner   string `json:"runner"`
	ExitCode *int   `json:"exit_code"`
	Summary  string `json:"summary"`
	Stdout   string `json:"stdout"`
	Stderr   string `json:"stderr"`
}

func resultOf(t api.TaskDetail) testResult {
	var r testResult
	_ = json.Unmarshal(t.Result, &r) // a test that did not get to run has none
	return r
}

// reportTests prints the tests and the failures, and is an error when there are any.
func (a *app) reportTests(tests []api.TaskDetail) error {
	failed := 0
	for _, t := range tests {
		if t.Status != labmesh.Completed {
			failed++
		}
	}
	if a.json {
		if err := a.printJSON(tests); err != nil {
			return err
		}
	} else if err := a.printTests(tests, failed); err != nil {
		return err
	}
	if failed > 0 {
		return exitError{exitFailed, ""}
	}
	return nil
}

func (a *app) printTests(tests []api.TaskDetail, failed int) error {
	for _, t := range tests {
		if t.Status == labmesh.Completed {
			continue
		}
		r := resultOf(t)
		fmt.Fprintln(a.out, a.paint(a.out, bold, fmt.Sprintf("--- %s (%s on %s, task %s): %s",
			printable(string(t.Name)), t.Status, orElse(string(t.Worker), "no worker"), t.ID, printable(string(t.Error)))))
		for _, text := range []string{r.Stdout, r.Stderr} {
			if text = strings.TrimSpace(text); text != "" {
				fmt.Fprintln(a.out, lastLines(text, failureLines))
			}
		}
	}
	t := newTable(a.out, "TEST", "STATUS", "TOOK", "WORKER", "SUMMARY")
	for _, test := range tests {
		t.row(test.Name, test.Status, lasted(a.now(), test.Started.Time, test.Ended.Time), test.Worker, orElse(resultOf(test).Summary, string(test.Error)))
	}
	if err := t.flush(); err != nil {
		return err
	}
	summary := fmt.Sprintf("%d passed, %d failed", len(tests)-failed, failed)
	colour := green
	if failed > 0 {
		colour = red
	}
	_, err := fmt.Fprintln(a.out, a.paint(a.out, colour, summary))
	return err
}

func lastLines(text string, most int) string {
	lines := strings.Split(text, "\n")
	if len(lines) <= most {
		return text
	}
	return fmt.Sprintf("… %d lines above\n%s", len(lines)-most, strings.Join(lines[len(lines)-most:], "\n"))
}
