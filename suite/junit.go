package suite

import (
	"cmp"
	"io"
	"strconv"
	"strings"
	"time"

	"labmesh"
	"labmesh/suite/junit"
)

// Report is a suite that was run, for a JUnit file.
type Report struct {
	Name    string
	ID      string // labels of its tasks have it
	Started time.Time
	Results []Result
	Host    func(labmesh.WorkerID) string // a worker's name; nil for its id
	Errors  []CollectError                // what could not be collected
}

// CollectError is a file whose cases could not be collected.
type CollectError struct {
	File    string `json:"file"`
	Message string `json:"message"`
}

// WriteJUnit writes one valid JUnit file of the whole suite, a testsuite for each file of it.
func (r Report) WriteJUnit(w io.Writer) error {
	doc := junit.Report{Name: junit.Text(r.Name)}
	index := map[string]int{}
	add := func(file string, c junit.Case) {
		name := cmp.Or(file, r.Name)
		at, ok := index[name]
		if !ok {
			at = len(doc.Suites)
			index[name] = at
			doc.Suites = append(doc.Suites, junit.Suite{Name: junit.Text(name), Timestamp: junit.Timestamp(r.Started)})
		}
		c.File = junit.Text(file)
		doc.Suites[at].Cases = append(doc.Suites[at].Cases, c)
	}
	for i := range r.Results {
		add(r.Results[i].Case.File, r.junitCase(&r.Results[i]))
	}
	for _, e := range r.Errors {
		add(e.File, junit.Case{Name: "collection", Class: junit.Text(className(e.File)), Error: junit.NewProblem("error", e.Message)})
	}
	return doc.Write(w)
}

func (r Report) junitCase(res *Result) junit.Case {
	last := res.Last()
	name := res.Case.Name
	if i := strings.LastIndex(name, "::"); i >= 0 {
		name = name[i+2:]
	}
	if res.Case.Params != "" {
		name += "[" + res.Case.Params + "]"
	}
	class := className(res.Case.File)
	if i := strings.LastIndex(res.Case.Name, "::"); i >= 0 {
		class += "." + strings.ReplaceAll(res.Case.Name[:i], "::", ".")
	}
	c := junit.Case{Name: junit.Text(cmp.Or(name, res.Case.ID)), Class: junit.Text(class), Time: junit.Seconds(last.Seconds)}
	if len(res.Runs) > 0 {
		c.Properties = r.properties(last)
	}
	bad := res.Verdict.Bad()
	switch {
	case res.Verdict == "":
		c.Skipped = junit.NewProblem("not_run", "it was not run")
	case bad && res.Case.Quarantined:
		c.Skipped = junit.NewProblem("quarantined", "in quarantine; it "+string(res.Verdict)+": "+last.Message)
	case res.Verdict == labmesh.TestFailed:
		c.Failure = junit.NewProblem("failed", last.Message)
	case bad:
		c.Error = junit.NewProblem(string(res.Verdict), last.Message)
	case res.Verdict == labmesh.TestSkipped, res.Verdict == labmesh.TestXFailed:
		c.Skipped = junit.NewProblem(string(res.Verdict), last.Message)
	}
	for _, run := range res.Runs[:max(len(res.Runs)-1, 0)] {
		if p := junit.NewProblem(string(run.Verdict), run.Message); run.Verdict.Bad() && !bad {
			c.Flaky = append(c.Flaky, p)
		} else if run.Verdict.Bad() {
			c.Rerun = append(c.Rerun, p)
		}
	}
	return c
}

// properties says where a case ran.
func (r Report) properties(run Run) *junit.Properties {
	worker := string(run.Worker)
	if r.Host != nil {
		worker = r.Host(run.Worker)
	}
	return &junit.Properties{List: []junit.Property{
		{Name: "worker", Value: junit.Text(worker)}, {Name: "worker_id", Value: junit.Text(run.Worker)}, {Name: "task", Value: junit.Text(run.Task)},
		{Name: "attempt", Value: junit.Text(strconv.Itoa(run.Attempt))}, {Name: "try", Value: junit.Text(strconv.Itoa(run.Try))},
	}}
}

func className(file string) string {
	for _, ext := range []string{".py", ".go"} {
		file = strings.TrimSuffix(file, ext)
	}
	return strings.ReplaceAll(strings.Trim(strings.TrimPrefix(file, "./"), "/"), "/", ".")
}
