package swarm_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"labmesh"
	"labmesh/content/pack"
	"labmesh/content/store"
	"labmesh/content/swarm"
	"labmesh/mesh"
)

// The benchmarks run this test program again and again, as nodes: each a process
// with a mesh host and a swarm, which is told what to do over its standard
// input, line by line.

// nodeDir is set for a process that is to be a node.
const nodeDir = "LABMESH_SWARM_NODE"

const (
	swarmProtocol = "/labmesh/content/1"
	copyProtocol  = "/labmesh/copy/1"
)

func TestMain(m *testing.M) {
	dir := os.Getenv(nodeDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := beNode(dir, os.Getenv(nodeDir+"_LISTEN")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// order is what a node is told, answer what it says.
type order struct {
	Op    string // know, pack, fetch, copy
	Nodes map[labmesh.NodeID][]string
	ID    string
	From  labmesh.NodeID
	Bytes int
	Seed  byte
}

type answer struct {
	Err     string
	Node    labmesh.NodeID
	Addrs   []string
	ID      string
	Traffic swarm.Traffic
	CPU     float64 // seconds that the process has used
}

// process is a node as its parent sees it.
type process struct {
	answer // the first one
	in     io.WriteCloser
	out    *bufio.Scanner
}

// startNode starts a node; wrap is what the program is run by, such as "ip
// netns exec".
func startNode(b *testing.B, listen string, wrap ...string) *process {
	b.Helper()
	args := append(wrap, os.Args[0])
	cmd := exec.Command(args[0], args[1:]...) // it ends with its standard input, which ends with us
	cmd.Env = append(os.Environ(), nodeDir+"="+b.TempDir(), nodeDir+"_LISTEN="+listen)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	p := &process{in: in, out: bufio.NewScanner(out)}
	b.Cleanup(func() {
		_ = in.Close() // it ends when there is nothing more to do
		_ = cmd.Wait()
	})
	p.answer = p.hear(b)
	return p
}

func (p *process) hear(b *testing.B) (a answer) {
	b.Helper()
	if !p.out.Scan() {
		b.Fatalf("a node has ended: %v", p.out.Err())
	}
	if err := json.Unmarshal(p.out.Bytes(), &a); err != nil {
		b.Fatal(err)
	}
	if a.Err != "" {
		b.Fatal(a.Err)
	}
	return a
}

func (p *process) tell(b *testing.B, o order) {
	b.Helper()
	if err := json.NewEncoder(p.in).Encode(o); err != nil {
		b.Fatal(err)
	}
}

func (p *process) do(b *testing.B, o order) answer {
	b.Helper()
	p.tell(b, o)
	return p.hear(b)
}

// together tells several nodes the same and waits for all.
func together(b *testing.B, nodes []*process, o order) (took time.Duration, said []answer) {
	b.Helper()
	began := time.Now()
	for _, p := range nodes {
		p.tell(b, o)
	}
	for _, p := range nodes {
		said = append(said, p.hear(b))
	}
	return time.Since(began), said
}

// spent is the processor time of all nodes so far.
func spent(b *testing.B, nodes []*process) (sum float64) {
	b.Helper()
	for _, p := range nodes {
		sum += p.do(b, order{}).CPU
	}
	return sum
}

// introduce lets all nodes know all, and waits until they are connected.
func introduce(b *testing.B, nodes []*process) {
	b.Helper()
	all := map[labmesh.NodeID][]string{}
	for _, p := range nodes {
		all[p.Node] = p.Addrs
	}
	together(b, nodes, order{Op: "know", Nodes: all})
}

// beNode is the life of a node's process.
func beNode(dir, listen string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var mu sync.Mutex
	members := map[labmesh.NodeID][]string{}
	list := func() (out []labmesh.NodeID) {
		mu.Lock()
		defer mu.Unlock()
		for n := range members {
			out = append(out, n)
		}
		return out
	}
	key, _, err := mesh.LoadKey(filepath.Join(dir, mesh.KeyFile))
	if err != nil {
		return err
	}
	host, err := mesh.Open(ctx, mesh.Config{
		Mesh: "m-bench", Dir: dir, Key: key, Listen: []string{listen}, NoMDNS: true, NoDHT: true, NoQUIC: true, Members: list,
		Admit: func(n labmesh.NodeID, _ string) bool {
			mu.Lock()
			defer mu.Unlock()
			_, ok := members[n]
			return ok
		},
	})
	if err != nil {
		return err
	}
	s, err := store.Open(filepath.Join(dir, "blobs"), store.Config{BytesMax: 4 << 30})
	if err != nil {
		return err
	}
	others := func() (out []labmesh.NodeID) {
		for _, n := range list() {
			if n != host.ID() {
				out = append(out, n)
			}
		}
		return out
	}
	w := swarm.New(s, host.Streams(swarmProtocol), others, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	copies, err := host.Streams(copyProtocol).Listen()
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	running.Go(func() { _ = host.Run(ctx) })
	running.Go(func() { _ = w.Run(ctx) })
	running.Go(func() { serveCopies(copies) })
	say := json.NewEncoder(os.Stdout)
	if err := say.Encode(answer{Node: host.ID(), Addrs: host.Addrs()}); err != nil {
		return err
	}
	hear := json.NewDecoder(os.Stdin)
	for {
		var o order
		if err := hear.Decode(&o); err != nil {
			cancel()
			_ = copies.Close()
			running.Wait()
			return errors.Join(host.Close(), os.RemoveAll(dir))
		}
		var a answer
		err := error(nil)
		switch o.Op {
		case "know":
			mu.Lock()
			members = o.Nodes
			mu.Unlock()
			for n, addrs := range o.Nodes {
				if n != host.ID() {
					host.Learn(n, addrs...)
				}
			}
			host.MembersChanged()
			for end := time.Now().Add(30 * time.Second); len(host.Connected()) < len(o.Nodes)-1; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					err = fmt.Errorf("connected to %d of %d nodes", len(host.Connected()), len(o.Nodes)-1)
					break
				}
			}
		case "pack":
			a.ID, err = packRandom(ctx, s, filepath.Join(dir, "src"), o.Seed, o.Bytes)
		case "fetch":
			err = w.Fetch(ctx, o.ID)
		case "copy":
			err = copyFrom(ctx, host, o.From, o.Bytes)
		}
		if err != nil {
			a.Err = fmt.Sprintf("%s %s: %v", host.ID(), o.Op, err)
		}
		a.Traffic, a.CPU = w.Traffic(), cpu()
		if err := say.Encode(a); err != nil {
			return err
		}
	}
}

func cpu() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

func packRandom(ctx context.Context, s *store.Store, dir string, seed byte, n int) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed, 77}).Read(data)
	if err := os.WriteFile(filepath.Join(dir, "data"), data, 0o644); err != nil {
		return "", err
	}
	id, _, err := s.Pack(ctx, dir, pack.Options{})
	return id, err
}

// serveCopies sends who asks as many bytes as it asks for.
func serveCopies(l net.Listener) {
	block := make([]byte, 1<<20)
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			var n int
			if _, err := fmt.Fscanln(c, &n); err != nil {
				return
			}
			for n > 0 {
				m, err := c.Write(block[:min(n, len(block))])
				if n -= m; err != nil {
					return
				}
			}
		}()
	}
}

func copyFrom(ctx context.Context, host *mesh.Host, from labmesh.NodeID, n int) error {
	c, err := host.Streams(copyProtocol).Dial(ctx, from)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprintln(c, n); err != nil {
		return err
	}
	got, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(c, int64(n)), make([]byte, 1<<20))
	if err == nil && got != int64(n) {
		err = io.ErrUnexpectedEOF
	}
	return err
}
