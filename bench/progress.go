package bench

import (
	"fmt"
	"regexp"
	"strconv"

	"labmesh"
)

// Progress is how far a benchmark has come. The log of a benchmark's attempt is
// what the supervisor prints, and tells the progress on lines of its own, a few a
// second; who follows the log on any node reads them with [ParseProgress]. Lines
// that are none are for people.
type Progress struct {
	Run, Runs int    // which launch of the runner, of how many
	Arm       string // of a comparison: a or b
	Batch     int
	N         int                 // iterations measured so far
	Of        int                 // iterations asked for; more are measured where they are short
	P50       float64             // milliseconds; 0 while there is none
	Status    labmesh.BenchStatus // "" while the batch size is being measured
	Reason    string              // why the status is not ok
}

// String is p as it is on a line, without the newline.
func (p Progress) String() string {
	s := fmt.Sprintf("run %d/%d", p.Run, p.Runs)
	if p.Arm != "" {
		s += " " + p.Arm
	}
	s += fmt.Sprintf(" batch %d: %d/%d", p.Batch, p.N, p.Of)
	if p.P50 > 0 {
		s += fmt.Sprintf(", p50 %s ms", strconv.FormatFloat(p.P50, 'g', 4, 64))
	}
	if p.Status != "" {
		s += ", " + string(p.Status)
	}
	if p.Reason != "" {
		s += ": " + p.Reason
	}
	return s
}

var progressLine = regexp.MustCompile(`^run (\d{1,9})/(\d{1,9})(?: ([ab]))? batch (\d{1,9}): (\d{1,9})/(\d{1,9})(?:, p50 ([0-9.e+-]{1,20}) ms)?(?:, ([a-z_]{1,20})(?:: (.*))?)?$`)

// ParseProgress reads a line of the log of a benchmark's attempt.
func ParseProgress(line string) (p Progress, ok bool) {
	m := progressLine.FindStringSubmatch(line)
	if m == nil {
		return p, false
	}
	for i, to := range map[int]*int{1: &p.Run, 2: &p.Runs, 4: &p.Batch, 5: &p.N, 6: &p.Of} {
		*to, _ = strconv.Atoi(m[i]) // digits, and few
	}
	if m[7] != "" {
		var err error
		if p.P50, err = strconv.ParseFloat(m[7], 64); err != nil || p.P50 <= 0 {
			return Progress{}, false
		}
	}
	p.Arm, p.Status, p.Reason = m[3], labmesh.BenchStatus(m[8]), m[9]
	return p, true
}
