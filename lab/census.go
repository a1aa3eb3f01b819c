package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"labmesh"
)

// tokenVar marks every process of an attempt.
const tokenVar = "LABMESH_ATTEMPT_TOKEN"

// ticksPerSecond is the unit of times in /proc/PID/stat on every Linux.
const ticksPerSecond = 100

// Process is a process of an attempt.
type Process struct {
	PID     int
	Task    labmesh.TaskID
	Command string
}

// Attempts lists the processes of this mesh's attempts, whoever is their parent
// by now: they are known by the attempt's token and by temporary files in the
// mesh's directory. It needs /proc, and finds none without.
func (m *Mesh) Attempts() ([]Process, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, fmt.Errorf("look for attempts: %w", err)
	}
	var found []Process
	for _, dir := range dirs {
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil || !bytes.Contains(env, []byte(tokenVar+"=")) {
			continue // another user's, gone by now, or none of an attempt
		}
		vars := variables(env)
		if !strings.HasPrefix(vars["TMPDIR"], m.cfg.Dir+"/") {
			continue // another mesh's
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline")) // for people
		found = append(found, Process{PID: pid, Task: labmesh.TaskID(vars["LABMESH_TASK_ID"]), Command: strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))})
	}
	return found, nil
}

// Keeper is the process that keeps the node's programs running while the node is
// away, 0 when there is none. It needs /proc.
func (n *Node) Keeper() int {
	data, err := os.ReadFile(filepath.Join(n.Dir, "running", "keeper.lock"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	line, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline")) // none of one that is gone
	if !strings.Contains(string(line), "\x00keeper\x00"+n.Dir+"/") {
		return 0 // it is gone, and its id is another's
	}
	return pid
}

// EndKeeper ends what a node that was killed has left running, now.
func (n *Node) EndKeeper() error {
	ctx, cancel := context.WithTimeout(context.Background(), killWait)
	defer cancel()
	if n.Running() {
		return fmt.Errorf("end the keeper of %s: the node runs", n.Name)
	}
	return Until(ctx, func() bool {
		pid := n.Keeper()
		if pid == 0 {
			return true
		}
		if proc, err := os.FindProcess(pid); err == nil {
			_ = proc.Signal(syscall.SIGTERM) // it may be gone
		}
		return false
	})
}

func variables(environ []byte) map[string]string {
	vars := map[string]string{}
	for v := range bytes.SplitSeq(environ, []byte{0}) {
		name, value, _ := strings.Cut(string(v), "=")
		vars[name] = value
	}
	return vars
}

// Usage is what a node's process takes of the machine.
type Usage struct {
	RSSBytes   int64
	PeakBytes  int64 // the most that RSSBytes has been
	CPUSeconds float64
	OpenFiles  int
	Threads    int
}

// Usage measures the node's process. It needs /proc.
func (n *Node) Usage() (Usage, error) {
	dir := filepath.Join("/proc", strconv.Itoa(n.PID()))
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return Usage{}, fmt.Errorf("measure %s: %w", n.Name, err)
	}
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return Usage{}, fmt.Errorf("measure %s: %w", n.Name, err)
	}
	files, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return Usage{}, fmt.Errorf("measure %s: %w", n.Name, err)
	}
	u := Usage{OpenFiles: len(files)}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		number, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64) // other lines are no numbers
		switch name {
		case "VmRSS":
			u.RSSBytes = number << 10
		case "VmHWM":
			u.PeakBytes = number << 10
		case "Threads":
			u.Threads = int(number)
		}
	}
	// The fields after the name, which stands in brackets: utime is the 12th, stime the 13th.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, f := range fields[11:13] {
		ticks, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return Usage{}, fmt.Errorf("measure %s: %w", n.Name, err)
		}
		u.CPUSeconds += ticks / ticksPerSecond
	}
	return u, nil
}
