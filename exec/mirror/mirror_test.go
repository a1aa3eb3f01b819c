package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/mirror"
	"labmesh/exec/output"
)

// net of keepers in memory. Keepers are called k0, k1, and so on; the first that
// is up and not to be avoided is chosen.
type world struct {
	t       *testing.T
	sender  *mirror.Sender
	keepers []*mirror.Keeper
	accept  []chan net.Conn
	up      []atomic.Bool
	pause   atomic.Int64 // between two reads of a keeper, in nanoseconds

	mu      sync.Mutex
	conns   []net.Conn
	changed chan struct{}
}

func (w *world) Dial(_ context.Context, node labmesh.NodeID) (net.Conn, error) {
	i := int(node[1] - '0')
	if !w.up[i].Load() {
		return nil, errors.New("nobody there")
	}
	here, there := net.Pipe()
	w.mu.Lock()
	w.conns = append(w.conns, here, there)
	w.mu.Unlock()
	w.accept[i] <- slow{there, w}
	return here, nil
}

// slow is a connection whose reader takes its time.
type slow struct {
	net.Conn
	w *world
}

func (s slow) Read(p []byte) (int, error) {
	time.Sleep(time.Duration(s.w.pause.Load()))
	return s.Conn.Read(p)
}

type incoming struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *incoming) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *incoming) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *incoming) Addr() net.Addr { return nil }

// cut breaks all connections; down keepers are not found again.
func (w *world) cut(down ...int) {
	for _, i := range down {
		w.up[i].Store(false)
	}
	w.mu.Lock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
	close(w.changed)
	w.changed = make(chan struct{})
	w.mu.Unlock()
}

// inWorld runs test with a sender and n keepers, in a bubble.
func inWorld(t *testing.T, n int, test func(w *world), change ...func(i int, c *mirror.KeeperConfig)) {
	t.Helper()
	dirs := make([]string, n)
	for i := range dirs {
		dirs[i] = t.TempDir()
	}
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, up: make([]atomic.Bool, n), changed: make(chan struct{})}
		ctx, stop := context.WithCancel(context.Background())
		var running sync.WaitGroup
		for i, dir := range dirs {
			cfg := mirror.KeeperConfig{Dir: dir}
			for _, c := range change {
				c(i, &cfg)
			}
			k, err := mirror.OpenKeeper(cfg)
			if err != nil {
				t.Fatal(err)
			}
			in := &incoming{conns: make(chan net.Conn, 8), done: make(chan struct{})}
			w.keepers, w.accept = append(w.keepers, k), append(w.accept, in.conns)
			w.up[i].Store(true)
			running.Go(func() { _ = k.Serve(ctx, in) })
		}
		w.sender = mirror.NewSender(mirror.SenderConfig{
			Streams: w, Alive: func(n labmesh.NodeID) bool { return w.up[n[1]-'0'].Load() },
			Choose: func(_ labmesh.TaskID, _ int, avoid func(labmesh.NodeID) bool) labmesh.NodeID {
				for i := range w.up {
					if id := labmesh.NodeID(fmt.Sprint("k", i)); w.up[i].Load() && !avoid(id) {
						return id
					}
				}
				return ""
			},
			Changed: func() <-chan struct{} { w.mu.Lock(); defer w.mu.Unlock(); return w.changed },
		})
		running.Go(func() { _ = w.sender.Run(ctx) })
		test(w)
		stop()
		running.Wait()
	})
}

// attempt is an output that is copied once it prints.
func (w *world) attempt(dir string) *output.Output {
	o := output.New(dir)
	o.OnPrint(func() { w.sender.Watch("t", 1, o) })
	return o
}

// copied is what a keeper has of stdout, "" for nothing.
func (w *world) copied(i int, s output.Stream) (text string, c mirror.Copy) {
	w.t.Helper()
	o, c, err := w.keepers[i].Find("t", 1)
	if labmesh.ReasonOf(err) == labmesh.NotFound {
		return "", c
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return textOf(w.t, o, s), c
}

func textOf(t *testing.T, o *output.Output, s output.Stream) string {
	t.Helper()
	r := o.Open(t.Context(), output.Query{Stream: s})
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	return string(data)
}

// count is n bytes in which every place can be told from its neighbours.
func count(n int) []byte {
	b := make([]byte, 0, n+10)
	for i := 0; len(b) < n; i++ {
		b = strconv.AppendInt(b, 100_000_000+int64(i), 10)
		b = append(b, '\n')
	}
	return b[:n]
}

func TestWhatIsPrintedIsThereAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inWorld(t, 2, func(w *world) {
		o := w.attempt(dir)
		want := ""
		for i := range 40 {
			line := fmt.Sprintf("line %d \xff\x00\n", i)
			want += line
			o.Write(output.Stdout, []byte(line))
			o.Write(output.Stderr, []byte{byte(i)})
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(150 * time.Millisecond)
		if got, c := w.copied(0, output.Stdout); got != want || c.Ended || c.Sizes != [2]int64{int64(len(want)), 40} {
			w.t.Errorf("200 ms after it was printed the copy is %+v: %q", c, got)
		}
		o.Close()
		time.Sleep(200 * time.Millisecond)
		if got, c := w.copied(0, output.Stdout); got != want || !c.Ended {
			w.t.Errorf("after its end the copy is %+v: %q", c, got)
		}
		if got, _ := w.copied(1, output.Stdout); got != "" {
			w.t.Errorf("a second copy: %q", got)
		}
	})
}

func TestAnAttemptThatSaysLittleAndEndsIsNotCopied(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inWorld(t, 1, func(w *world) {
		o := w.attempt(dir)
		o.Write(output.Stdout, []byte("hello\n"))
		time.Sleep(20 * time.Millisecond)
		o.Close()
		time.Sleep(5 * time.Second)
		if got, _ := w.copied(0, output.Stdout); got != "" {
			w.t.Errorf("got %q", got)
		}
	})
}

func TestAnotherKeeperGetsAllWhenOneGoes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	all := count(2 << 20)
	inWorld(t, 2, func(w *world) {
		o := w.attempt(dir)
		o.Write(output.Stdout, all[:1<<20])
		time.Sleep(time.Second)
		w.cut(0)
		time.Sleep(time.Second) // it prints nothing meanwhile
		if got, _ := w.copied(1, output.Stdout); got != string(all[:1<<20]) {
			w.t.Errorf("the second keeper has %d bytes", len(got))
		}
		o.Write(output.Stdout, all[1<<20:])
		o.Close()
		time.Sleep(time.Second)
		if got, c := w.copied(1, output.Stdout); got != string(all) || !c.Ended {
			w.t.Errorf("the second keeper has %d bytes, ended %v", len(got), c.Ended)
		}
		if got, c := w.copied(0, output.Stdout); got != string(all[:1<<20]) || c.Ended {
			w.t.Errorf("the first keeper has %d bytes, ended %v", len(got), c.Ended)
		}
	})
}

func TestALostConnectionDoublesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	all := count(600_000)
	inWorld(t, 1, func(w *world) {
		o := w.attempt(dir)
		for rest := all; len(rest) > 0; rest = rest[min(1000, len(rest)):] {
			o.Write(output.Stdout, rest[:min(1000, len(rest))])
			time.Sleep(7 * time.Millisecond)
			if len(rest)%50_000 == 0 {
				w.cut()
			}
		}
		o.Close()
		time.Sleep(30 * time.Second)
		if got, c := w.copied(0, output.Stdout); got != string(all) || !c.Ended {
			w.t.Errorf("%d bytes, want %d; %+v", len(got), len(all), c)
		}
	})
}

func TestASlowKeeperCostsTheMiddleAndNobodyWaits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	all := count(output.HeadBytesMax + output.TailBytesMax + 20<<20)
	inWorld(t, 1, func(w *world) {
		w.pause.Store(int64(50 * time.Millisecond)) // 32 KiB each: 0.6 MB/s
		o := w.attempt(dir)
		began := time.Now()
		for rest := all; len(rest) > 0; rest = rest[min(32<<10, len(rest)):] {
			o.Write(output.Stdout, rest[:min(32<<10, len(rest))])
			time.Sleep(time.Millisecond) // 32 MB/s
		}
		if took := time.Since(began); took > 2*time.Second {
			w.t.Errorf("it took %s to print", took)
		}
		w.pause.Store(0)
		time.Sleep(time.Second)
		o.Close()
		time.Sleep(5 * time.Second)
		lost := len(all) - output.HeadBytesMax - output.TailBytesMax
		want := string(all[:output.HeadBytesMax]) + output.Marker(int64(lost)) + string(all[len(all)-output.TailBytesMax:])
		if got, c := w.copied(0, output.Stdout); got != want || !c.Ended {
			w.t.Errorf("%d bytes, want %d; %+v", len(got), len(want), c)
		}
	})
}

func TestAFullKeeperIsPassedOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inWorld(t, 2, func(w *world) {
		o := w.attempt(dir)
		o.Write(output.Stdout, count(100_000))
		o.Close()
		time.Sleep(time.Second)
		if got, _ := w.copied(1, output.Stdout); got != string(count(100_000)) {
			w.t.Errorf("the second keeper has %d bytes", len(got))
		}
	}, func(i int, c *mirror.KeeperConfig) { c.Full = func() bool { return i == 0 } })
}

func TestOldCopiesAreSwept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 5 {
		o := output.New(filepath.Join(dir, fmt.Sprint("t", i), "1"))
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprint("t", i), "1"), 0o700); err != nil {
			t.Fatal(err)
		}
		o.Write(output.Stdout, []byte("x"))
		o.Close()
		at := time.Now().Add(-time.Duration(i) * time.Hour)
		for _, name := range []string{"", "stdout"} {
			if err := os.Chtimes(filepath.Join(dir, fmt.Sprint("t", i), "1", name), at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	k, err := mirror.OpenKeeper(mirror.KeeperConfig{Dir: dir, Keep: exec.Keep{Age: 150 * time.Minute, Attempts: 10, Bytes: 8192}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- k.Serve(ctx, &incoming{done: make(chan struct{})}) }()
	deadline := time.Now().Add(10 * time.Second)
	for {
		left, err := os.ReadDir(dir)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%v, %v", left, err)
		}
		if len(left) == 2 && left[0].Name() == "t0" && left[1].Name() == "t1" {
			break
		}
		<-time.After(5 * time.Millisecond)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// BenchmarkCopy is how fast output gets from a sender to a keeper over TCP on
// one machine, when it is printed no faster than it is copied.
func BenchmarkCopy(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	k, err := mirror.OpenKeeper(mirror.KeeperConfig{Dir: b.TempDir(), Full: func() bool { return false }})
	if err != nil {
		b.Fatal(err)
	}
	s := mirror.NewSender(mirror.SenderConfig{
		Streams: dialer(l.Addr().String()), Alive: func(labmesh.NodeID) bool { return true }, Changed: func() <-chan struct{} { return nil },
		Choose: func(labmesh.TaskID, int, func(labmesh.NodeID) bool) labmesh.NodeID { return "k" },
	})
	ctx, stop := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = k.Serve(ctx, l) })
	running.Go(func() { _ = s.Run(ctx) })
	defer running.Wait()
	defer stop()
	const piece = 4 << 20 // half of what is kept of the end
	text, n := count(piece), 0
	b.SetBytes(piece)
	for b.Loop() {
		o := output.New(b.TempDir())
		o.OnPrint(func() { s.Watch("t", n+1, o) })
		o.Write(output.Stdout, text)
		o.Close()
		n++
		for {
			if _, c, err := k.Find("t", n); err == nil && c.Ended {
				break
			}
			<-time.After(time.Millisecond)
		}
	}
}

// dialer reaches the one keeper there is.
type dialer string

func (d dialer) Dial(ctx context.Context, _ labmesh.NodeID) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", string(d))
}
