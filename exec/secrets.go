package exec

import (
	"encoding/json"
	"fmt"

	"labmesh"
	"labmesh/exec/output"
)

// entrust gives a the secrets that its task asks for, and has them hidden in all
// that is shown of it. Where the mesh has one no more, it gives the outcome.
func (w *Worker) entrust(a *Attempt) (o labmesh.Outcome, failed bool) {
	names := a.Task.Spec.Secrets
	if len(names) == 0 {
		return o, false
	}
	a.Secrets = make(map[string]string, len(names))
	for _, name := range names {
		value, ok := "", false
		if w.cfg.Secrets != nil {
			value, ok = w.cfg.Secrets(name)
		}
		if !ok {
			return labmesh.Outcome{Cause: labmesh.CauseConfig, Error: fmt.Sprintf(
				"secrets: the mesh has no secret %s any more: set it with `labmesh secret set %s`, and submit the task again", name, name)}, true
		}
		a.Secrets[name] = value
	}
	r := output.NewRedactor(a.Secrets)
	if r == nil {
		return o, false
	}
	a.hide = r
	a.Output.Redact(r)
	if record := a.Record; record != nil {
		a.Record = func(cases []labmesh.TestCase) { record(hideInCases(r, cases)) }
	}
	if record := a.RecordRows; record != nil {
		a.RecordRows = func(rows []labmesh.BenchRow) { record(hideInRows(r, rows)) }
	}
	return o, false
}

// hideInCases is cases without the values that r hides.
func hideInCases(r *output.Redactor, cases []labmesh.TestCase) []labmesh.TestCase {
	out := make([]labmesh.TestCase, len(cases))
	for i, c := range cases {
		c.File, c.Name, c.Params, c.Message = r.String(c.File), r.String(c.Name), r.String(c.Params), r.String(c.Message)
		out[i] = c
	}
	return out
}

// hideInRows is rows without the values that r hides, in any of their texts. Of a
// row that would make no sense without, what people read is left out.
func hideInRows(r *output.Redactor, rows []labmesh.BenchRow) []labmesh.BenchRow {
	out := make([]labmesh.BenchRow, len(rows))
	for i, row := range rows {
		data, err := json.Marshal(row)
		if err == nil {
			err = json.Unmarshal(r.JSON(data), &out[i])
		}
		if err != nil {
			row.Reason, row.Doubts, row.Env = "", nil, nil
			out[i] = row
		}
	}
	return out
}

// hideIn is o without the values that r hides.
func hideIn(r *output.Redactor, o labmesh.Outcome) labmesh.Outcome {
	if r != nil {
		o.Error, o.Result, o.Metrics = r.String(o.Error), r.JSON(o.Result), r.JSON(o.Metrics)
	}
	return o
}
