package probe

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"labmesh/bench"
)

// Limits on asking how GPUs are.
const (
	stateBytesMax = 1 << 20          // of one answer of the child
	smiRest       = 10 * time.Second // between two askings of nvidia-smi, which takes some 50 ms of CPU time
	gpusMax       = 256
)

// stateAnswer is a line that the child writes: how the GPUs are, in answer to
// the question with the same number, or why nobody can say.
type stateAnswer struct {
	N      int              `json:"n"`
	GPUs   []bench.GPUState `json:"gpus"`
	Reason string           `json:"reason,omitempty"`
}

// GPUStatesChild writes to w how the GPUs are, each time that a line with a number
// is read from r, until r ends. Call it in a process of its own, as [GPUChild]: it
// is the child of [GPUs].
func GPUStatesChild(r io.Reader, w io.Writer) error {
	ask, done, err := openStates()
	if err != nil {
		return json.NewEncoder(w).Encode(stateAnswer{Reason: err.Error()})
	}
	defer done()
	lines := bufio.NewScanner(r)
	out := json.NewEncoder(w)
	for lines.Scan() {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			return fmt.Errorf("read a question: %w", err)
		}
		if err := out.Encode(stateAnswer{N: n, GPUs: ask()}); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
	return lines.Err()
}

// GPUs asks how the GPUs are, again and again: a child process that keeps the
// driver's library open, or nvidia-smi where that does not work. It is safe for many
// goroutines. Close it.
type GPUs struct {
	environ []string

	mu     sync.Mutex
	child  *stateChild // nil without
	last   []bench.GPUState
	asked  time.Time // when nvidia-smi was
	closed bool
}

// OpenGPUs starts the child: command with its arguments must call
// [GPUStatesChild]. environ is the environment of what is run; nil means that of this process.
func OpenGPUs(environ, command []string) *GPUs {
	if environ == nil {
		environ = os.Environ()
	}
	g := &GPUs{environ: environ}
	if len(command) > 0 {
		g.child = startStates(environ, command) // nil where it cannot be
	}
	return g
}

// Sample is how all GPUs are. Where only nvidia-smi can say, an answer serves for
// some seconds.
func (g *GPUs) Sample(ctx context.Context) ([]bench.GPUState, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, os.ErrClosed
	}
	if g.child != nil {
		all, err := g.child.sample(ctx)
		if err == nil || ctx.Err() != nil {
			return all, err
		}
		g.child.close()
		g.child = nil // its library is no good
	}
	if !g.asked.IsZero() && time.Since(g.asked) < smiRest {
		return g.last, nil
	}
	all, err := smiStates(ctx, g.environ)
	if err != nil {
		return nil, err
	}
	g.last, g.asked = all, time.Now()
	return all, nil
}

// Close ends the child. It is safe twice.
func (g *GPUs) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	if g.child != nil {
		g.child.close()
		g.child = nil
	}
	return nil
}

// stateChild is the process that keeps the driver's library open.
type stateChild struct {
	cmd     *exec.Cmd
	ask     *os.File
	answers *os.File
	in      *bufio.Reader
	pending []byte // of a line of which the rest has not come yet
	n       int
}

func startStates(environ, command []string) *stateChild {
	questions, ask, err := os.Pipe()
	if err != nil {
		return nil
	}
	defer questions.Close()
	answers, answer, err := os.Pipe()
	if err != nil {
		ask.Close()
		return nil
	}
	defer answer.Close()
	c := &stateChild{cmd: exec.Command(command[0], command[1:]...), ask: ask, answers: answers, in: bufio.NewReader(answers)}
	c.cmd.Env, c.cmd.Stdin, c.cmd.Stdout = environ, questions, answer
	if err := c.cmd.Start(); err != nil {
		ask.Close()
		answers.Close()
		return nil
	}
	return c
}

// sample asks once. An answer that comes too late is passed over by the next.
func (c *stateChild) sample(ctx context.Context) ([]bench.GPUState, error) {
	if err := c.answers.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = c.answers.SetReadDeadline(time.Unix(1, 0)) })()
	c.n++
	if err := c.ask.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintln(c.ask, c.n); err != nil {
		return nil, err
	}
	for {
		line, err := c.line()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		var a stateAnswer
		switch err := json.Unmarshal(line, &a); {
		case err != nil:
			return nil, fmt.Errorf("read how the GPUs are: %w", err)
		case a.Reason != "":
			return nil, errors.New(a.Reason)
		case len(a.GPUs) > gpusMax:
			return nil, fmt.Errorf("read how the GPUs are: there are said to be %d", len(a.GPUs))
		case a.N == c.n:
			return a.GPUs, nil
		}
	}
}

// line reads a line, over several calls where a deadline cuts it.
func (c *stateChild) line() ([]byte, error) {
	for {
		part, err := c.in.ReadSlice('\n')
		c.pending = append(c.pending, part...)
		switch {
		case len(c.pending) > stateBytesMax:
			return nil, errors.New("read how the GPUs are: the answer has no end")
		case err == nil:
			line := c.pending
			c.pending = nil
			return line, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// close ends the child. One that hangs in the driver cannot be reaped; it is not waited for.
func (c *stateChild) close() {
	c.ask.Close()
	c.answers.Close()
	_ = c.cmd.Process.Kill() // it may have ended
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = c.cmd.Wait()
	}()
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-gone:
	case <-timer.C:
	}
}

// stateFields are what nvidia-smi is asked for. A driver that is too old for one
// of them refuses the whole question: then it is asked again without.
var stateFields = []string{
	"index", "uuid", "name", "pci.bus_id", "driver_version", "compute_cap", "memory.total", "memory.used", "mig.mode.current", "ecc.mode.current", "persistence_mode", "pstate",
	"temperature.gpu", "power.draw", "power.limit", "clocks.sm", "clocks.max.sm", "clocks.mem", "utilization.gpu", "clocks_throttle_reasons.active",
}

// smiStates asks nvidia-smi how the GPUs are.
func smiStates(ctx context.Context, environ []string) ([]bench.GPUState, error) {
	path, err := findTool("nvidia-smi", environ)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	run := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.Env, cmd.WaitDelay = environ, time.Second
		return cmd.Output()
	}
	fields, out, err := query(run, stateFields)
	if err != nil {
		return nil, err
	}
	all, err := parseStates(fields, out)
	if err != nil {
		return nil, err
	}
	if out, err := run("--query-compute-apps=gpu_uuid,pid,process_name,used_gpu_memory", "--format=csv,noheader,nounits"); err == nil {
		addProcesses(all, out)
	}
	return all, nil
}

// parseStates reads the answer of nvidia-smi for these fields. What it puts in
// square brackets, e.g. [N/A], it does not know.
func parseStates(fields []string, out []byte) (all []bench.GPUState, err error) {
	rows := csv.NewReader(bytes.NewReader(out))
	rows.TrimLeadingSpace = true
	rows.FieldsPerRecord = len(fields)
	table, err := rows.ReadAll()
	if err != nil || len(table) > gpusMax {
		return nil, fmt.Errorf("read the answer of nvidia-smi: %d GPUs, %w", len(table), err)
	}
	for _, row := range table {
		text := func(field string) string {
			if i := slices.Index(fields, field); i >= 0 && !strings.HasPrefix(row[i], "[") {
				return strings.TrimSpace(row[i])
			}
			return ""
		}
		number := func(field string) *float64 {
			n, err := strconv.ParseFloat(text(field), 64)
			if err != nil || n != n || n < 0 || n > 1<<50 {
				return nil
			}
			return &n
		}
		bytes := func(field string) *int64 {
			n := number(field)
			if n == nil {
				return nil
			}
			b := int64(*n * mib)
			return &b
		}
		index := number("index")
		if index == nil {
			return nil, fmt.Errorf("read the answer of nvidia-smi: %.40q is no index of a GPU", text("index"))
		}
		s := bench.GPUState{
			Index: int(*index), UUID: text("uuid"), Name: text("name"), PCI: text("pci.bus_id"), Driver: text("driver_version"), Compute: text("compute_cap"),
			Memory: bytes("memory.total"), Used: bytes("memory.used"), MIG: enabled(text("mig.mode.current")), ECC: enabled(text("ecc.mode.current")), Persists: enabled(text("persistence_mode")),
			PState: text("pstate"), TempC: number("temperature.gpu"), PowerW: number("power.draw"), PowerLimitW: number("power.limit"),
			SMMHz: number("clocks.sm"), SMMaxMHz: number("clocks.max.sm"), MemoryMHz: number("clocks.mem"), Utilization: number("utilization.gpu"),
		}
		if mask, err := strconv.ParseUint(strings.TrimPrefix(text("clocks_throttle_reasons.active"), "0x"), 16, 64); err == nil {
			s.Throttle, s.Reasons = &mask, bench.ThrottleWords(mask)
		}
		all = append(all, s)
	}
	return all, nil
}

// enabled is a word of nvidia-smi for on or off.
func enabled(text string) *bool {
	on := text == "Enabled"
	if !on && text != "Disabled" {
		return nil
	}
	return &on
}

// addProcesses reads the answer of nvidia-smi about what computes.
func addProcesses(all []bench.GPUState, out []byte) {
	rows := csv.NewReader(bytes.NewReader(out))
	rows.TrimLeadingSpace = true
	rows.FieldsPerRecord, rows.LazyQuotes = -1, true // a name may hold a comma
	table, _ := rows.ReadAll()                       // what cannot be read is not known
	for _, row := range table {
		if len(row) < 4 {
			continue // "No running processes found"
		}
		pid, err := strconv.Atoi(row[1])
		i := slices.IndexFunc(all, func(s bench.GPUState) bool { return s.UUID == row[0] })
		if err != nil || i < 0 {
			continue
		}
		p := bench.GPUProcess{PID: pid, Name: strings.Join(row[2:len(row)-1], ",")}
		if mb, err := strconv.ParseFloat(row[len(row)-1], 64); err == nil && mb >= 0 && mb < 1<<40 {
			n := int64(mb * mib)
			p.Bytes = &n
		}
		all[i].Processes = append(all[i].Processes, p)
	}
}
