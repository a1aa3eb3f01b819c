package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"labmesh"
)

// Selector chooses one side of a comparison: rows that meet all of its terms.
type Selector struct {
	text  string
	terms []term
}

// term is one condition of a selector.
type term struct{ field, value string }

// The fields of terms, beside labels, whose field is "label:" and their name.
const (
	byAny    = "" // a task, a run or a commit
	byTask   = "task"
	byRun    = "run"
	byCommit = "commit"
	byWorker = "worker"
	byEngine = "engine"
	byDevice = "device"
	byArm    = "arm"
	byLabel  = "label:"
)

var fields = []string{byTask, byRun, byCommit, byWorker, byEngine, byDevice, byArm}

// SelectorHelp says how a selector is written.
const SelectorHelp = "a task id, a run id, the beginning of a commit, label=value, or worker:, engine:, device:, commit:, task:, run:, arm: and a value; a comma means and"

// Limits on selectors.
const (
	selectorBytesMax = 1000
	commitCharsMin   = 4 // of a commit that is given without saying that it is one
)

// ParseSelector reads a selector; SelectorHelp says how it is written.
func ParseSelector(text string) (Selector, error) {
	if len(text) > selectorBytesMax {
		return Selector{}, labmesh.Refuse(labmesh.Invalid, "a selector of %d bytes: at most %d are allowed", len(text), selectorBytesMax)
	}
	s := Selector{text: text}
	for part := range strings.SplitSeq(text, ",") {
		t := parseTerm(strings.TrimSpace(part))
		switch {
		case t.value == "":
			return s, labmesh.Refuse(labmesh.Invalid, "the selector %q has a part without a value; it is %s", text, SelectorHelp)
		case t.field == byLabel:
			return s, labmesh.Refuse(labmesh.Invalid, "the selector %q has a label without a name; it is %s", text, SelectorHelp)
		case t.field == byArm && t.value != "a" && t.value != "b":
			return s, labmesh.Refuse(labmesh.Invalid, "the selector %q: arm is a or b", text)
		}
		s.terms = append(s.terms, t)
	}
	return s, nil
}

func parseTerm(part string) term {
	if field, value, ok := strings.Cut(part, ":"); ok && slices.Contains(fields, field) {
		return term{field, value}
	}
	if name, value, ok := strings.Cut(part, "="); ok {
		return term{byLabel + name, value}
	}
	return term{byAny, part}
}

// String is the selector as it was written.
func (s Selector) String() string { return s.text }

// arm is the arm that s asks for, "" for none.
func (s Selector) arm() string {
	for _, t := range s.terms {
		if t.field == byArm {
			return t.value
		}
	}
	return ""
}

// withArm is s for one arm of a comparison on one machine.
func (s Selector) withArm(arm string) Selector {
	return Selector{text: s.text + ",arm:" + arm, terms: append(slices.Clone(s.terms), term{byArm, arm})}
}

// Matches reports whether r is chosen. Candidates of comparisons on one machine,
// which may be anything, are chosen only by who asks for arm:b.
func (s Selector) Matches(r *Row) bool {
	if r.Arm == "b" && s.arm() != "b" {
		return false
	}
	for _, t := range s.terms {
		if !t.matches(r) {
			return false
		}
	}
	return true
}

func (t term) matches(r *Row) bool {
	switch t.field {
	case byAny:
		return string(r.Task) == t.value || r.Run == t.value || len(t.value) >= commitCharsMin && beginsCommit(r, t.value)
	case byTask:
		return string(r.Task) == t.value
	case byRun:
		return r.Run == t.value
	case byCommit:
		return beginsCommit(r, t.value)
	case byWorker:
		return string(r.Worker) == t.value || strings.EqualFold(r.Host, t.value)
	case byEngine:
		return strings.EqualFold(r.Work.Engine, t.value)
	case byDevice:
		return strings.EqualFold(r.Work.DeviceClass, t.value) || r.Work.DeviceUUID == t.value ||
			strings.Contains(strings.ToLower(r.Work.DeviceName), strings.ToLower(t.value))
	case byArm:
		return r.Arm == t.value
	}
	value, ok := r.Labels[strings.TrimPrefix(t.field, byLabel)]
	return ok && value == t.value
}

func beginsCommit(r *Row, prefix string) bool {
	commit := r.Commit()
	return len(commit) >= len(prefix) && strings.EqualFold(commit[:len(prefix)], prefix)
}

// choose is the rows that s chooses, or a refusal that says what there is.
func (s Selector) choose(rows []Row) ([]Row, error) {
	var out []Row
	commits := map[string]bool{}
	for i := range rows {
		if s.Matches(&rows[i]) {
			out = append(out, rows[i])
			if s.byCommit(&rows[i]) {
				commits[rows[i].Commit()] = true
			}
		}
	}
	if len(out) == 0 {
		return nil, labmesh.Refuse(labmesh.NotFound, "no benchmark results are chosen by %q%s", s.text, inventory(rows))
	}
	if len(commits) > 1 {
		return nil, labmesh.Refuse(labmesh.Invalid, "%q is the beginning of %d commits: %s; give more of it", s.text, len(commits), some(slices.Sorted(maps.Keys(commits))))
	}
	return out, nil
}

// byCommit reports whether s chose r by the beginning of its commit.
func (s Selector) byCommit(r *Row) bool {
	return slices.ContainsFunc(s.terms, func(t term) bool {
		return t.field == byCommit || t.field == byAny && string(r.Task) != t.value && r.Run != t.value
	})
}

// inventoryMax is how many values of a kind a refusal names.
const inventoryMax = 6

// inventory says what rows could be chosen by.
func inventory(rows []Row) string {
	if len(rows) == 0 {
		return ": there are none to choose from; `labmesh bench MODEL` makes some"
	}
	seen := map[string]map[string]bool{}
	note := func(kind, value string) {
		if value == "" {
			return
		}
		if seen[kind] == nil {
			seen[kind] = map[string]bool{}
		}
		seen[kind][value] = true
	}
	for i := range rows {
		r := &rows[i]
		note("models", r.Work.Model)
		note("tasks", string(r.Task))
		note("workers", string(r.Worker))
		note("engines", r.Work.Engine)
		note("devices", deviceName(r.Work.DeviceClass, r.Work.DeviceName))
		for name, value := range r.Labels {
			if !slices.Contains(commitLabels, name) {
				note("labels", name+"="+value)
			}
		}
		note("commits", r.Commit())
	}
	var b strings.Builder
	b.WriteString("; there are")
	sep := " "
	for _, kind := range []string{"models", "tasks", "commits", "labels", "workers", "engines", "devices"} {
		if values := seen[kind]; len(values) > 0 {
			fmt.Fprintf(&b, "%s%s %s", sep, kind, some(slices.Sorted(maps.Keys(values))))
			sep = "; "
		}
	}
	return b.String()
}

// some names the first few of values, and says how many there are beyond.
func some(values []string) string {
	if more := len(values) - inventoryMax; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(values[:inventoryMax], ", "), more)
	}
	return strings.Join(values, ", ")
}
