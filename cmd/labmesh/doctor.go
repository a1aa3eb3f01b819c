package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labmesh/client"
)

// grade says how bad a finding is.
type grade string

const (
	gradeOK   grade = "ok"
	gradeWarn grade = "warn" // it works, and could be better
	gradeBad  grade = "bad"  // something does not work
)

// finding is one thing that the doctor looked at.
type finding struct {
	About string `json:"about"`
	Grade grade  `json:"grade"`
	Found string `json:"found"`
	Do    string `json:"do,omitempty"` // what helps
}

// findings are what the doctor found, in the order of looking.
type findings []finding

func (f *findings) ok(about, format string, args ...any) {
	*f = append(*f, finding{About: about, Grade: gradeOK, Found: fmt.Sprintf(format, args...)})
}

func (f *findings) warn(about, do, format string, args ...any) {
	*f = append(*f, finding{About: about, Grade: gradeWarn, Found: fmt.Sprintf(format, args...), Do: do})
}

func (f *findings) bad(about, do, format string, args ...any) {
	*f = append(*f, finding{About: about, Grade: gradeBad, Found: fmt.Sprintf(format, args...), Do: do})
}

// worst counts what is not ok.
func (f findings) worst() (warn, bad int) {
	for _, x := range f {
		switch x.Grade {
		case gradeWarn:
			warn++
		case gradeBad:
			bad++
		}
	}
	return warn, bad
}

func newDoctorCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "What is wrong, and what helps: this machine, its node, and the mesh",
		Long: `Looks at this machine (data dir, disk, cgroups, sandboxes, accelerators and why they
are not usable), at its node, and at the mesh (leader, other nodes, clocks, versions), and
says of each ok, warn or bad, with what to do. Without a node it looks at the machine alone.

It exits with 1 when something is bad. Warnings are for you to weigh.`,
		Example: "  labmesh doctor\n  labmesh doctor --json | jq -r '.[] | select(.grade != \"ok\") | .do'",
		Args:    args(cobra.NoArgs, "it takes no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			found, err := a.examine(cmd.Context())
			if err != nil {
				return err
			}
			if err := a.printFindings(found); err != nil {
				return err
			}
			if _, bad := found.worst(); bad > 0 {
				return exitError{exitFailed, ""}
			}
			return nil
		},
	}
}

// doctorPatience is how long the doctor waits for a node that does not answer.
const doctorPatience = 3 * time.Second

// examine looks at the machine, and at the mesh if a node answers.
func (a *app) examine(ctx context.Context) (findings, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	var f findings
	c, err := a.patientClient(doctorPatience)
	if err != nil {
		c = nil
	} else {
		defer c.Close()
	}
	mesh := askMesh(ctx, c, err)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir := a.dataDir
	if dir == "" {
		dir = client.DefaultDataDir(a.getenv)
	}
	machine{dir: dir, self: self, worker: mesh.local(dir), environ: os.Environ()}.examine(ctx, &f)
	mesh.examine(&f)
	return f, ctx.Err()
}

func (a *app) printFindings(found findings) error {
	if a.json {
		return a.printJSON(found)
	}
	colours := map[grade]string{gradeOK: green, gradeWarn: yellow, gradeBad: red}
	for _, x := range found {
		fmt.Fprintf(a.out, "%s %s: %s\n", a.paint(a.out, colours[x.Grade], fmt.Sprintf("%-4s", x.Grade)), x.About, printable(x.Found))
		if x.Do != "" {
			fmt.Fprintf(a.out, "     → %s\n", printable(x.Do))
		}
	}
	warn, bad := found.worst()
	var parts []string
	for _, p := range []struct {
		n    int
		word string
	}{{bad, "bad"}, {warn, "to weigh"}, {len(found) - warn - bad, "ok"}} {
		parts = append(parts, fmt.Sprintf("%d %s", p.n, p.word))
	}
	fmt.Fprintf(a.out, "\n%s\n", strings.Join(parts, ", "))
	return nil
}
