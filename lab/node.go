package lab

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"labmesh"
	"labmesh/client"
)

// Bounds on what a node may take.
const (
	readyWait    = 30 * time.Second // from its start to its ready line
	stopWait     = 20 * time.Second // from SIGTERM to its end
	killWait     = 5 * time.Second  // from SIGKILL to its end
	logBytesKept = 256 << 10        // of the end of a node's log
)

// Node is one labmesh process with a data dir of its own. A node that has ended
// may be started again. Its methods are for one goroutine at a time.
type Node struct {
	Name string // also the id of its worker
	Dir  string // its data dir

	bin  string
	args []string // of `labmesh up`
	join string   // an invite; looked at by a node that is in no mesh yet

	log    *tail
	copies io.Writer // everything the node says goes here too; may be nil

	place Place // where it runs

	id     labmesh.NodeID
	api    client.Config
	invite string
	proc   *process
	client *client.Client
}

// Place is where a node runs when that is not simply this machine, such as a
// network namespace.
type Place struct {
	Run    []string // the command that becomes the command behind it, there; none for here
	Listen string   // the multiaddr at which other nodes reach the node
	// Dial reaches the place's own loopback, where the node's API is; nil means here.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Put says where the node runs from its next start on.
func (n *Node) Put(p Place) { n.place = p }

// process is one life of a node.
type process struct {
	cmd   *exec.Cmd
	ready chan string // its first lines on stdout; closed at its end
	done  chan struct{}
	err   error // how it ended; read it after done
}

// NewNode makes a node on its own, outside any mesh, without starting it.
func NewNode(bin, dir string, flags ...string) *Node {
	return &Node{Name: filepath.Base(dir), Dir: dir, bin: bin, args: flags, log: &tail{}}
}

// Start starts the node and returns when it has said that it is ready. A node
// that does not get there is ended, and the error holds the end of its log.
func (n *Node) Start(ctx context.Context) error {
	if n.Running() {
		return fmt.Errorf("start %s: it runs", n.Name)
	}
	args := append([]string{"up", "--data-dir", n.Dir, "--host", "127.0.0.1", "--port", "0", "--mesh-listen", cmp.Or(n.place.Listen, "/ip4/127.0.0.1/tcp/0"),
		"--worker-id", n.Name, "--hostname", n.Name, "--on-stop", "stop"}, n.args...)
	if n.join != "" {
		args = append(args, "--join", n.join)
	}
	p, err := n.spawn(args)
	if err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	n.proc = p
	if err := n.awaitReady(ctx, p); err != nil {
		return fmt.Errorf("start %s: %w", n.Name, errors.Join(err, n.Kill()))
	}
	return nil
}

func (n *Node) spawn(args []string) (*process, error) {
	out, err := os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	line := slices.Concat(n.place.Run, []string{n.bin}, args)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stdin = out
	cmd.Stderr = n.log
	if n.copies != nil {
		cmd.Stderr = io.MultiWriter(n.log, prefixed(n.copies, n.Name))
	}
	cmd.Env = environ()
	cmd.SysProcAttr = attributes()
	cmd.WaitDelay = killWait // an attempt that outlives the node may hold its stderr
	lines, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, ready: make(chan string, 8), done: make(chan struct{})}
	go p.follow(lines)
	return p, nil
}

// follow reads the process's first lines until it ends, and then reaps it.
func (p *process) follow(stdout io.Reader) {
	defer close(p.done)
	for in := bufio.NewScanner(stdout); in.Scan(); {
		select {
		case p.ready <- in.Text():
		default: // nobody wants more
		}
	}
	close(p.ready)
	p.err = p.cmd.Wait()
}

// awaitReady reads the ready line, and the invite that follows it.
func (n *Node) awaitReady(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWait, fmt.Errorf("it was not ready after %s; its log ends: %s", readyWait, n.log))
	defer cancel()
	line, err := p.line(ctx)
	if err != nil {
		return fmt.Errorf("%w; its log ends: %s", err, n.log)
	}
	if !strings.HasPrefix(line, "labmesh ready ") {
		return fmt.Errorf("it said %q in place of its ready line", line)
	}
	if n.api, err = client.Discover(client.Where{DataDir: n.Dir, Getenv: func(string) string { return "" }}); err != nil {
		return err
	}
	if n.place.Dial != nil {
		n.api.Transport = &http.Transport{DialContext: n.place.Dial}
	}
	for word := range strings.FieldsSeq(line) {
		if id, ok := strings.CutPrefix(word, "node="); ok {
			n.id = labmesh.NodeID(id)
		}
	}
	if n.client != nil {
		n.client.Close()
		n.client = nil
	}
	if n.join == "" && n.invite == "" { // the founder's first life
		if line, err = p.line(ctx); err != nil {
			return err
		}
		n.invite = line[strings.LastIndexByte(line, ' ')+1:]
	}
	return nil
}

func (p *process) line(ctx context.Context) (string, error) {
	select {
	case line, ok := <-p.ready:
		if !ok {
			<-p.done
			return "", fmt.Errorf("it ended: %w", errors.Join(errors.New("no ready line"), p.err))
		}
		return line, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// Running reports whether the node's process is there.
func (n *Node) Running() bool {
	if n.proc == nil {
		return false
	}
	select {
	case <-n.proc.done:
		return false
	default:
		return true
	}
}

// Kill ends the node with SIGKILL and returns when it is gone. What it ran goes on
// for a while; see [Node.EndKeeper]. It does nothing to a node that does not run.
func (n *Node) Kill() error { return n.end(syscall.SIGKILL, killWait) }

// Stop ends the node in order, with SIGTERM, and with SIGKILL when it does not
// end: that is an error. Its attempts end with it unless its flags say otherwise
// (--on-stop). It does nothing to a node that does not run.
func (n *Node) Stop() error {
	err := n.end(syscall.SIGTERM, stopWait)
	if n.Running() {
		return errors.Join(err, n.Kill())
	}
	return err
}

func (n *Node) end(sig syscall.Signal, wait time.Duration) error {
	if !n.Running() {
		return nil
	}
	if err := n.signal(sig); err != nil {
		return err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-n.proc.done:
		var exit *exec.ExitError
		if sig == syscall.SIGKILL || n.proc.err == nil || errors.Is(n.proc.err, exec.ErrWaitDelay) {
			return nil
		}
		if errors.As(n.proc.err, &exit) {
			return fmt.Errorf("stop %s: it ended with code %d; its log ends: %s", n.Name, exit.ExitCode(), n.log)
		}
		return fmt.Errorf("stop %s: %w", n.Name, n.proc.err)
	case <-timer.C:
		return fmt.Errorf("stop %s: it was there %s after %s; its log ends: %s", n.Name, wait, sig, n.log)
	}
}

// Pause stops the node where it is, with SIGSTOP, as a machine that hangs.
func (n *Node) Pause() error { return n.signal(syscall.SIGSTOP) }

// Resume lets a paused node go on.
func (n *Node) Resume() error { return n.signal(syscall.SIGCONT) }

// signal goes to the one process that this node started and has not reaped.
func (n *Node) signal(sig syscall.Signal) error {
	if !n.Running() {
		return fmt.Errorf("send %s to %s: it does not run", sig, n.Name)
	}
	if err := n.proc.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %s to %s: %w", sig, n.Name, err)
	}
	return nil
}

// ID is the node's id, known once it has been ready.
func (n *Node) ID() labmesh.NodeID { return n.id }

// Worker is the id of the node's worker.
func (n *Node) Worker() labmesh.WorkerID { return labmesh.WorkerID(n.Name) }

// URL is where the node's API is in its newest life.
func (n *Node) URL() string { return n.api.URL }

// Key is an admin key for the node's API.
func (n *Node) Key() string { return n.api.Key }

// PID is the id of the node's process in its newest life.
func (n *Node) PID() int { return n.proc.cmd.Process.Pid }

// API is how the node's API is reached in its newest life.
func (n *Node) API() client.Config { return n.api }

// Log is the end of what the node has said on stderr, over all its lives.
func (n *Node) Log() string { return n.log.String() }

// Ledger is the path of the node's ledger.
func (n *Node) Ledger() string { return filepath.Join(n.Dir, "ledger.duckdb") }

// Client talks to the node. It lasts until the node is started again.
func (n *Node) Client() *client.Client {
	if n.client == nil {
		c, err := client.New(n.api)
		if err != nil {
			panic("lab: the node's own address: " + err.Error()) // it was read from api.json
		}
		n.client = c
	}
	return n.client
}

// Command is the command line `labmesh args…` as the person at this node's
// machine would type it.
func (n *Node) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, n.bin, args...)
	cmd.Env = append(environ(), "LABMESH_DATA_DIR="+n.Dir)
	return cmd
}

// environ is this process's environment without what would steer labmesh.
func environ() []string {
	out := []string{"LABMESH_NO_CALIBRATE=true"} // nodes that share a machine would measure one another
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "LABMESH_") || strings.HasPrefix(v, "LABMESH_PYTHON=") {
			out = append(out, v)
		}
	}
	return out
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - logBytesKept; over > logBytesKept {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

// String is the last lines.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
