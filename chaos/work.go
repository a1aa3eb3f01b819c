package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"labmesh"
	"labmesh/api"
)

// beat is how often a program says in its diary that it is still there.
const beat = 200 * time.Millisecond

// script is what a task runs: a program that writes in its diary, outside of
// labmesh, when it starts, that it is there, and that it ends. Lines are appended
// whole. The time is the machine's since boot, which nobody sets.
const script = `read boot </proc/sys/kernel/random/boot_id
say() { read up idle </proc/uptime; echo "$1 $LABMESH_TASK_ID $LABMESH_ATTEMPT $LABMESH_WORKER_ID $$ $boot $up" >>'%s'; }
say start; i=0; while [ $i -lt %d ]; do sleep %g; i=$((i+1)); say beat; done; say end`

// Work makes tasks whose programs keep a diary, and reads it. It knows what ran,
// whatever labmesh thinks of it.
type Work struct{ path string }

// NewWork keeps the diary in a directory.
func NewWork(dir string) (*Work, error) {
	abs, err := filepath.Abs(filepath.Join(dir, "diary"))
	if err != nil {
		return nil, fmt.Errorf("keep a diary: %w", err)
	}
	return &Work{abs}, nil
}

// Task is a task that takes d, in steps of 200 ms.
func (w *Work) Task(d time.Duration) labmesh.Spec {
	config, err := json.Marshal(map[string]any{"name": fmt.Sprintf(script, w.path, int(d/beat), beat.Seconds()), "shell": true})
	if err != nil {
		panic(err) // strings and booleans always encode
	}
	return labmesh.Spec{Kind: labmesh.Custom, Priority: api.PriorityDefault, Config: config, Name: "work for " + d.String()}
}

// Run is one life of a program, as its diary has it.
type Run struct {
	Task    labmesh.TaskID
	Attempt int
	Worker  labmesh.WorkerID
	PID     int
	Boot    string
	Start   time.Duration // since boot
	Last    time.Duration // when it was last there, by itself; it may have gone on for a beat
	Ended   bool          // it came to its end
}

func (r Run) String() string {
	return fmt.Sprintf("attempt %d on %s (process %d) from %.2f to %.2f s", r.Attempt, r.Worker, r.PID, r.Start.Seconds(), r.Last.Seconds())
}

// Runs reads the diary, in the order of the starts.
func (w *Work) Runs() ([]Run, error) {
	data, err := os.ReadFile(w.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the diary: %w", err)
	}
	return parse(string(data))
}

func parse(diary string) ([]Run, error) {
	var runs []Run
	at := map[string]int{} // of a process in runs
	for line := range strings.Lines(diary) {
		f := strings.Fields(line)
		if len(f) != 7 {
			return nil, fmt.Errorf("read the diary: %q has %d words, not 7", line, len(f))
		}
		attempt, err1 := strconv.Atoi(f[2])
		pid, err2 := strconv.Atoi(f[4])
		seconds, err3 := strconv.ParseFloat(f[6], 64)
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, fmt.Errorf("read the diary: %q: %w", line, err)
		}
		up := time.Duration(seconds * float64(time.Second))
		who := strings.Join(f[1:6], " ")
		i, known := at[who]
		if !known {
			i = len(runs)
			at[who] = i
			runs = append(runs, Run{Task: labmesh.TaskID(f[1]), Attempt: attempt, Worker: labmesh.WorkerID(f[3]), PID: pid, Boot: f[5], Start: up})
		}
		runs[i].Last = up
		runs[i].Ended = runs[i].Ended || f[0] == "end"
	}
	return runs, nil
}

// Uptime is the time since boot, as the diary has it.
func Uptime() (time.Duration, error) {
	data, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0, fmt.Errorf("read the time since boot: %w", err)
	}
	seconds, err := strconv.ParseFloat(strings.Fields(string(data) + " ?")[0], 64)
	if err != nil {
		return 0, fmt.Errorf("read the time since boot: %w", err)
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// Overlap is how long two runs of one task went on at the same time.
type Overlap struct {
	First, Second Run
	For           time.Duration
}

// Overlaps finds tasks that ran twice at the same time, longest first.
func Overlaps(runs []Run) (found []Overlap) {
	byTask := map[labmesh.TaskID][]Run{}
	for _, r := range runs {
		for _, before := range byTask[r.Task] {
			if both := min(before.Last, r.Last) - max(before.Start, r.Start); both > 0 && before.Boot == r.Boot {
				found = append(found, Overlap{before, r, both})
			}
		}
		byTask[r.Task] = append(byTask[r.Task], r)
	}
	slices.SortFunc(found, func(a, b Overlap) int { return int(b.For - a.For) })
	return found
}
