package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"labmesh"
	"labmesh/stats"
)

// comparisonsMax bounds a report.
const comparisonsMax = 500

// How the two sides of a comparison belong together.
const (
	OverTime = "series"  // the same work, engine and kind of device: equal series_key
	Across   = "work"    // the same work by other machines, devices or engines: equal compare_key
	Paired   = "ab_pair" // the arms of a task that ran two configs in turns on one machine
)

// Comparisons is the report on two sides.
type Comparisons struct {
	A            string       `json:"a"`
	B            string       `json:"b"`
	Comparisons  []Comparison `json:"comparisons"`
	Leftovers    []Leftover   `json:"leftovers"`
	Regressions  int          `json:"regressions"`
	Improvements int          `json:"improvements"`
	Same         int          `json:"same"`
	Insufficient int          `json:"insufficient"`
	Broken       int          `json:"broken"` // things that A measured and B failed at
	Truncated    bool         `json:"truncated"`
}

// Comparison is what became of one thing that both sides measured.
type Comparison struct {
	Kind      string `json:"kind"`
	Model     string `json:"model"`
	Batch     int    `json:"batch"`
	Precision string `json:"precision"`
	A         Side   `json:"a"`
	B         Side   `json:"b"`
	stats.Verdict
}

// Side is one side of a comparison.
type Side struct {
	Variant
	Commits    []string         `json:"commits"`
	Tasks      []labmesh.TaskID `json:"tasks"`
	From       time.Time        `json:"from"`
	To         time.Time        `json:"to"`
	Runs       int              `json:"runs"` // that have times
	MedianMS   *float64         `json:"median_ms"`
	LeastMS    *float64         `json:"least_ms"` // the fastest iteration of all
	Throughput *float64         `json:"throughput"`
	MediansMS  []float64        `json:"medians_ms"` // of the runs that are comparable, in order of time; the above are theirs
	LeftOut    map[string]int   `json:"left_out"`   // runs that are not comparable, by flag
}

// Variant is by what and where something was run.
type Variant struct {
	Series     string           `json:"series_key"`
	Engine     string           `json:"engine"`
	Version    string           `json:"engine_version,omitempty"`
	Device     string           `json:"device_class"`
	DeviceName string           `json:"device_name,omitempty"`
	Threads    int              `json:"threads,omitempty"`
	Worker     labmesh.WorkerID `json:"worker_id"`
	Host       string           `json:"hostname,omitempty"`
}

func variantOf(r *Row) Variant {
	return Variant{
		Series: r.Series, Engine: r.Work.Engine, Version: r.Work.EngineVersion, Device: r.Work.DeviceClass,
		DeviceName: deviceName("", r.Work.DeviceName), Threads: r.Work.Threads, Worker: r.Worker, Host: r.Host,
	}
}

// Machine is the worker as people call it.
func (v Variant) Machine() string { return machine(v.Host, v.Worker) }

// String names v for people, e.g. "torch on NVIDIA H100 of box3".
func (v Variant) String() string {
	return v.Engine + " on " + deviceName(v.Device, v.DeviceName) + " of " + v.Machine()
}

// Leftover is what only one side measured, or what a side tried in vain.
type Leftover struct {
	Side   string `json:"side"` // a or b
	What   string `json:"what"`
	Runs   int    `json:"runs"`
	Why    string `json:"why"`
	Failed bool   `json:"failed"` // it was tried and gave no times
}

// Compare compares what a chooses of rows with what b chooses. Where b is a, or
// has no terms, they are the two arms of the tasks that a chooses. What is chosen
// by both counts for b alone, so that one task can be compared with all of its branch.
func Compare(rows []Row, a, b Selector, opt stats.Options) (*Comparisons, error) {
	if err := asked(opt.Alpha, opt.Effect); err != nil {
		return nil, err
	}
	if len(b.terms) == 0 || a.text == b.text {
		a, b = a.withArm("a"), a.withArm("b")
	}
	inB, err := b.choose(rows)
	if err != nil {
		return nil, err
	}
	inA, err := a.choose(rows)
	if err != nil {
		return nil, err
	}
	if inA = without(inA, inB); len(inA) == 0 {
		return nil, labmesh.Refuse(labmesh.Invalid, "%q chooses nothing that %q does not choose: there is nothing to compare", a, b)
	}
	c := &collector{opt: opt, keys: likeness, verdict: runsVerdict}
	if a.arm() == "a" && b.arm() == "b" {
		c.keys, c.verdict = pairness, pairsVerdict
	}
	timedA, failedA := parted(inA)
	timedB, failedB := parted(inB)
	c.match(timedA, timedB, c.keys)
	if len(c.found) == 0 && len(failedB) == 0 {
		return nil, labmesh.Refuse(labmesh.Invalid, "%q and %q have measured nothing in common: %s; %s", a, b, sums("the first", timedA, failedA), sums("the second", timedB, failedB))
	}
	if len(c.found) > comparisonsMax {
		return nil, labmesh.Refuse(labmesh.TooLarge, "these are %d comparisons; at most %d are made: choose less, e.g. one model or batch size", len(c.found), comparisonsMax)
	}
	out := &Comparisons{A: a.String(), B: b.String(), Comparisons: orNone(c.found), Leftovers: orNone(c.left)}
	out.failures("a", failedA, timedA, nil)
	out.failures("b", failedB, timedB, timedA)
	out.judge(opt)
	return out, nil
}

// judge makes the verdicts final and counts them.
func (c *Comparisons) judge(opt stats.Options) {
	slices.SortStableFunc(c.Comparisons, func(x, y Comparison) int {
		return cmp.Or(cmp.Compare(x.Model, y.Model), cmp.Compare(x.Precision, y.Precision), cmp.Compare(x.A.String(), y.A.String()),
			cmp.Compare(x.B.String(), y.B.String()), cmp.Compare(x.Batch, y.Batch))
	})
	verdicts := make([]stats.Verdict, len(c.Comparisons))
	for i := range verdicts {
		verdicts[i] = c.Comparisons[i].Verdict
	}
	stats.Correct(verdicts, opt)
	for i, v := range verdicts {
		c.Comparisons[i].Verdict = v
		switch v.Outcome {
		case stats.Regression:
			c.Regressions++
		case stats.Improvement:
			c.Improvements++
		case stats.Insufficient:
			c.Insufficient++
		default:
			c.Same++
		}
	}
}

// failures notes what rows without times tried, and what of it the other side could do.
func (c *Comparisons) failures(side string, failed, timed, other []Row) {
	name := func(r *Row) string { return work(r.Work.Model, r.Work.Requested, r.Work.Batch) }
	for _, what := range sortedKeys(failed, name) {
		rows := grouped(failed, name)[what]
		ways := map[string]int{}
		for i := range rows {
			ways[string(rows[i].Status)]++
		}
		all := !slices.ContainsFunc(timed, func(r Row) bool { return name(&r) == what })
		if all && slices.ContainsFunc(other, func(r Row) bool { return name(&r) == what }) {
			c.Broken++
		}
		why := "without times: " + counted(ways)
		if reason := rows[len(rows)-1].Reason; reason != "" {
			why += "; " + reason
		}
		c.Leftovers = append(c.Leftovers, Leftover{Side: side, What: what, Runs: len(rows), Why: why, Failed: all})
	}
}

// collector gathers comparisons while sides are matched.
type collector struct {
	opt     stats.Options
	keys    []key
	verdict func(a, b []Row, opt stats.Options) (stats.Verdict, string)
	found   []Comparison
	left    []Leftover
}

// key is something in which the two sides of a comparison are to be equal.
type key struct {
	what string
	of   func(*Row) string
	must bool // else it is passed over where the sides have no value in common
}

// likeness is in what sides are alike, the more important first: what both have
// in common is matched, and what only one has is left out and named. Where they
// have nothing in common, as workers in a comparison of two workers, all may differ.
var likeness = []key{
	{"work", func(r *Row) string { return r.Compare }, true},
	{"engine, version, kind of device and settings", func(r *Row) string { return r.Series }, false},
	{"engine", func(r *Row) string { return r.Work.Engine }, false},
	{"class of device", func(r *Row) string { return r.Work.DeviceClass }, false},
	{"device", func(r *Row) string { return r.Work.DeviceName }, false},
	{"worker", func(r *Row) string { return string(r.Worker) }, false},
}

// pairness is what the halves of pairs have in common. Their configs may differ.
var pairness = []key{
	{"task", func(r *Row) string { return string(r.Task) }, true},
	{"batch size", func(r *Row) string { return fmt.Sprint(r.Work.Batch) }, true},
}

func (c *collector) match(a, b []Row, keys []key) {
	if len(a) == 0 || len(b) == 0 {
		c.leave("a", a, "the other side has no times at all")
		c.leave("b", b, "the other side has no times at all")
		return
	}
	if len(keys) == 0 {
		c.cross(a, b)
		return
	}
	k := keys[0]
	inA, inB := grouped(a, k.of), grouped(b, k.of)
	common := slices.DeleteFunc(sortedKeys(a, k.of), func(v string) bool { return len(inB[v]) == 0 })
	if len(common) == 0 && !k.must {
		c.match(a, b, keys[1:])
		return
	}
	for _, v := range common {
		c.match(inA[v], inB[v], keys[1:])
	}
	for _, s := range []struct {
		side        string
		rows        []Row
		mine, other map[string][]Row
	}{{"a", a, inA, inB}, {"b", b, inB, inA}} {
		for _, v := range sortedKeys(s.rows, k.of) {
			if len(s.other[v]) == 0 {
				c.leave(s.side, s.mine[v], "the other side has no runs with the same "+k.what)
			}
		}
	}
}

// cross compares every variant of a with every one of b: runs of different
// machines are never thrown together. Pairs are of one machine as they are.
func (c *collector) cross(a, b []Row) {
	variant := func(r *Row) string { return r.Series + "\x00" + string(r.Worker) }
	if c.keys[0].what == "task" {
		variant = func(r *Row) string { return string(r.Worker) }
	}
	inA, inB := grouped(a, variant), grouped(b, variant)
	for _, va := range sortedKeys(a, variant) {
		for _, vb := range sortedKeys(b, variant) {
			ra, rb := inA[va], inB[vb]
			v, kind := c.verdict(ra, rb, c.opt)
			first := &rb[len(rb)-1]
			x := Comparison{
				Kind: kind, Model: first.Work.Model, Batch: first.Work.Batch, Precision: first.precision(),
				A: sideOf(ra), B: sideOf(rb), Verdict: v,
			}
			if v.Outcome == stats.Insufficient {
				x.Why += leftOut("the first", x.A) + leftOut("the second", x.B)
			}
			c.found = append(c.found, x)
		}
	}
}

func leftOut(side string, s Side) string {
	if len(s.LeftOut) == 0 {
		return ""
	}
	return fmt.Sprintf("; of %s left out: %s", side, counted(s.LeftOut))
}

func (c *collector) leave(side string, rows []Row, why string) {
	name := func(r *Row) string {
		return work(r.Work.Model, r.precision(), r.Work.Batch) + ", " + variantOf(r).String()
	}
	groups := grouped(rows, name)
	for _, what := range sortedKeys(rows, name) {
		c.left = append(c.left, Leftover{Side: side, What: what, Runs: len(groups[what]), Why: why})
	}
}

func runsVerdict(a, b []Row, opt stats.Options) (stats.Verdict, string) {
	kind := Across
	if a[0].Series == b[0].Series {
		kind = OverTime
	}
	return stats.CompareRuns(runsOf(a), runsOf(b), opt), kind
}

// pairsVerdict puts the halves of each repeat together.
func pairsVerdict(a, b []Row, opt stats.Options) (stats.Verdict, string) {
	type place struct{ attempt, repeat int }
	other := map[place]*Row{}
	for i := range b {
		other[place{b[i].Attempt, b[i].Repeat}] = &b[i]
	}
	var pairs []stats.Pair
	for i := range a {
		if half := other[place{a[i].Attempt, a[i].Repeat}]; half != nil {
			pairs = append(pairs, stats.Pair{A: runOf(&a[i]), B: runOf(half)})
		}
	}
	return stats.ComparePairs(pairs, opt), Paired
}

func runsOf(rows []Row) []stats.Run {
	out := make([]stats.Run, len(rows))
	for i := range rows {
		out[i] = runOf(&rows[i])
	}
	return out
}

func runOf(r *Row) stats.Run {
	run := stats.Run{Comparable: r.usable()}
	if r.Wall != nil {
		run.Median = r.Wall.P50
	}
	if r.Throughput != nil {
		run.Throughput = *r.Throughput
	}
	return run
}

// sideOf sums up rows of one variant.
func sideOf(rows []Row) Side {
	s := Side{Variant: variantOf(&rows[len(rows)-1]), Commits: []string{}, Tasks: []labmesh.TaskID{}, MediansMS: []float64{}, LeftOut: map[string]int{}, Runs: len(rows)}
	s.From, s.To = span(rows)
	var throughput []float64
	for i := range rows {
		r := &rows[i]
		if commit := r.Commit(); commit != "" && !slices.Contains(s.Commits, commit) {
			s.Commits = append(s.Commits, commit)
		}
		if !slices.Contains(s.Tasks, r.Task) {
			s.Tasks = append(s.Tasks, r.Task)
		}
		if !r.usable() {
			s.LeftOut[flagsOf(r)]++
			continue
		}
		s.MediansMS = append(s.MediansMS, r.Wall.P50)
		if least := r.Wall.Min; least > 0 && (s.LeastMS == nil || least < *s.LeastMS) {
			s.LeastMS = new(least)
		}
		if r.Throughput != nil {
			throughput = append(throughput, *r.Throughput)
		}
	}
	s.MedianMS, s.Throughput = median(s.MediansMS), median(throughput)
	return s
}

func flagsOf(r *Row) string {
	if len(r.Flags) == 0 {
		return "not comparable"
	}
	var words []string
	for _, f := range r.Flags {
		words = append(words, string(f))
	}
	return strings.Join(words, "+")
}

// median is the median of values, nil for none.
func median(values []float64) *float64 {
	if len(values) == 0 {
		return nil
	}
	return new(stats.Median(values))
}

// parted tells rows with times from those without.
func parted(rows []Row) (timed, failed []Row) {
	for _, r := range rows {
		if r.timed() {
			timed = append(timed, r)
		} else {
			failed = append(failed, r)
		}
	}
	return timed, failed
}

// without is rows less those that are among other.
func without(rows, other []Row) []Row {
	type identity struct {
		task    labmesh.TaskID
		attempt int
		run     string
		batch   int
	}
	id := func(r *Row) identity { return identity{r.Task, r.Attempt, r.Run, r.Work.Batch} }
	there := map[identity]bool{}
	for i := range other {
		there[id(&other[i])] = true
	}
	return slices.DeleteFunc(rows, func(r Row) bool { return there[id(&r)] })
}

// orNone is list, and an empty one rather than nil: in JSON a list is a list.
func orNone[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func grouped(rows []Row, by func(*Row) string) map[string][]Row {
	out := map[string][]Row{}
	for i := range rows {
		k := by(&rows[i])
		out[k] = append(out[k], rows[i])
	}
	return out
}

// sortedKeys are the values of by among rows, sorted.
func sortedKeys(rows []Row, by func(*Row) string) []string {
	return slices.Sorted(maps.Keys(grouped(rows, by)))
}

// work names what is run for people.
func work(model, precision string, batch int) string {
	return fmt.Sprintf("%s %s, batch %d", model, precision, batch)
}

func counted(n map[string]int) string {
	var words []string
	for _, k := range slices.Sorted(maps.Keys(n)) {
		words = append(words, fmt.Sprintf("%d %s", n[k], k))
	}
	return strings.Join(words, ", ")
}

// sums says what a side has measured.
func sums(side string, timed, failed []Row) string {
	if len(timed) == 0 {
		return fmt.Sprintf("%s has no times (%d rows that failed)", side, len(failed))
	}
	return side + " has " + some(sortedKeys(timed, func(r *Row) string {
		return work(r.Work.Model, r.precision(), r.Work.Batch) + " by " + r.Work.Engine
	}))
}
