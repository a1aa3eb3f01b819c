package suite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/junit"
	"labmesh/exec/output"
	"labmesh/exec/process"
)

// Placeholders in a command.
const (
	filesHere = "{files}" // as an argument of its own: one argument for each file
	junitHere = "{junit}" // where the report is to be written
)

// command runs a chunk of a suite of any program that writes JUnit XML.
func (c *chunk) command(ctx context.Context) (labmesh.Outcome, error) {
	c.label = "junit"
	report := c.file(junitName)
	args := expand(c.conf.Command, c.conf.Files, report)
	exit, err := c.m.Launch(ctx, c.a, Program{Name: args[0], Args: args[1:]})
	if err != nil {
		return labmesh.Outcome{}, err
	}
	if _, _, stopped := exec.Stopped(ctx); stopped && exit.Stopped {
		return c.commandStopped(ctx, report), nil
	}
	seen, err := c.readReport(report)
	c.judgeCommand(exit, report, seen, err)
	return c.outcome(ctx), nil
}

// commandStopped is the outcome of a command that was not let run to its end.
func (c *chunk) commandStopped(ctx context.Context, report string) labmesh.Outcome {
	_, _ = c.readReport(report) // there may be some already
	o := c.outcome(ctx)
	cause, message, _ := exec.Stopped(ctx)
	o.OK, o.Cause, o.Error = false, cause, message
	return o
}

// expand puts the files and the report's path into a command.
func expand(command, files []string, report string) (args []string) {
	for _, arg := range command {
		if arg == filesHere {
			args = append(args, files...)
			continue
		}
		if strings.Contains(arg, filesHere) {
			quoted := make([]string, len(files))
			for i, f := range files {
				quoted[i] = quote(f)
			}
			arg = strings.ReplaceAll(arg, filesHere, strings.Join(quoted, " "))
		}
		args = append(args, strings.ReplaceAll(arg, junitHere, report))
	}
	return args
}

// quote makes a file's name one word for a shell.
func quote(s string) string {
	plain := strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./+:@%,=", r))
	}) < 0
	if plain && s != "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// readReport puts a report among the files to keep, records its test cases and
// returns the files that they are of.
func (c *chunk) readReport(report string) (seen map[string]bool, err error) {
	seen = map[string]bool{}
	kept := filepath.Join(c.a.Keep(), junitName)
	if info, err := os.Lstat(report); err == nil && info.Mode().IsRegular() { // else an earlier life of this worker has moved it
		if err := errors.Join(os.MkdirAll(c.a.Keep(), 0o700), os.Rename(report, kept)); err != nil {
			return seen, err
		}
	}
	f, err := os.Open(kept)
	if err != nil {
		return seen, err
	}
	defer f.Close()
	log := span(output.Stdout, 0, c.a.Output.Size(output.Stdout))
	return seen, junit.Read(f, func(t junit.Case) {
		v := c.caseOf(t)
		v.log = log
		seen[v.file] = true
		c.record(v)
	})
}

// caseOf says which file of the chunk a test case belongs to.
func (c *chunk) caseOf(t junit.Case) verdict {
	v := verdict{file: c.fileOf(t), name: t.Name, verdict: t.Verdict, seconds: t.Seconds, message: t.Message}
	if t.Class != "" && t.Class != v.file {
		v.name = t.Class + "::" + t.Name
	}
	return v
}

func (c *chunk) fileOf(t junit.Case) string {
	name := filepath.ToSlash(t.File)
	if filepath.IsAbs(name) {
		if rel, err := filepath.Rel(c.a.Work(), name); err == nil {
			name = rel
		}
	}
	name = strings.TrimPrefix(name, "./")
	for _, f := range c.conf.Files {
		if name == f || name == strings.TrimPrefix(f, "./") {
			return f
		}
	}
	switch {
	case len(c.conf.Files) == 1:
		return c.conf.Files[0]
	case name != "":
		return name
	}
	return t.Class
}

// judgeCommand adds what the test cases do not say: that the program crashed, or
// failed without a bad case, or that there is no whole report.
func (c *chunk) judgeCommand(exit process.Exit, report string, seen map[string]bool, err error) {
	how := ending(exit, nil)
	v := verdict{verdict: labmesh.TestError}
	switch {
	case exit.Signal != 0:
		v.verdict, v.message = labmesh.TestCrashed, fmt.Sprintf("%s crashed: %s\n%s", c.conf.Command[0], how, c.lastWords())
	case errors.Is(err, fs.ErrNotExist):
		v.message = fmt.Sprintf("%s ended with %s and wrote no report to %s: put %s where it takes the path for JUnit XML; its last words:\n%s", c.conf.Command[0], how, report, junitHere, c.lastWords())
	case err != nil:
		v.message = fmt.Sprintf("the JUnit report of %s cannot be read whole: %v\nit ended with %s; its last words:\n%s", c.conf.Command[0], err, how, c.lastWords())
	case exit.Code != 0 && c.badCases() == 0:
		v.message = fmt.Sprintf("%s ended with %s, but its report has no bad test case; its last words:\n%s", c.conf.Command[0], how, c.lastWords())
	default:
		return
	}
	told := false
	for _, f := range c.conf.Files {
		if !seen[f] {
			v.file, told = f, true
			c.record(v)
		}
	}
	if !told {
		v.file, v.name = "", filepath.Base(c.conf.Command[0])
		if len(c.conf.Files) == 1 {
			v.file = c.conf.Files[0]
		}
		c.record(v)
	}
}

// badCases counts the bad verdicts, also those in quarantine.
func (c *chunk) badCases() (n int) {
	for v, k := range c.counts {
		if v.Bad() {
			n += k
		}
	}
	return n
}
