package output_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"labmesh/exec/output"
)

// read reads what q asks for, to its end.
func read(t *testing.T, o *output.Output, q output.Query) string {
	t.Helper()
	r := o.Open(t.Context(), q)
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

func TestKeepsHeadAndTail(t *testing.T) {
	t.Parallel()
	const head, tail = output.HeadBytesMax, output.TailBytesMax
	most := count(head + 2*tail + 12345)
	for _, c := range []struct{ n, chunk int }{
		{0, 1}, {1, 1}, {head - 1, 999}, {head, 32 << 10}, {head + 1, 1 << 20}, {head + tail, 32 << 10}, {head + tail + 1, 999},
		{len(most), 32 << 10}, {len(most), len(most)},
	} {
		t.Run(fmt.Sprintf("%d by %d", c.n, c.chunk), func(t *testing.T) {
			all := most[:c.n]
			dir := t.TempDir()
			o := output.New(dir)
			for rest := all; len(rest) > 0; rest = rest[min(c.chunk, len(rest)):] {
				o.Write(output.Stdout, rest[:min(c.chunk, len(rest))])
			}
			want := string(all)
			if lost := c.n - head - tail; lost > 0 {
				want = string(all[:head]) + output.Marker(int64(lost)) + string(all[c.n-tail:])
			}
			running := read(t, o, output.Query{})
			o.Close()
			ended := read(t, o, output.Query{Stream: output.Stdout, Follow: true})
			loaded, err := output.Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			for name, got := range map[string]string{"running": running, "ended": ended, "loaded": read(t, loaded, output.Query{})} {
				if got != want {
					t.Errorf("%s: %d bytes, want %d", name, len(got), len(want))
				}
			}
			if a, b := o.Excerpt(output.Stdout), loaded.Excerpt(output.Stdout); a != b {
				t.Errorf("the excerpt was %d bytes, and is %d after it was loaded", len(a.Text), len(b.Text))
			}
			if c.n == 0 {
				if left, _ := os.ReadDir(dir); len(left) > 0 {
					t.Errorf("nothing was printed, and there is %v", left)
				}
			}
		})
	}
}

func TestReadsFromAnOffset(t *testing.T) {
	t.Parallel()
	o, all := output.New(t.TempDir()), count(3*output.HeadBytesMax)
	o.Write(output.Stderr, all)
	o.Close()
	for _, c := range []struct {
		at   int
		want string
	}{
		{10, string(all[10:output.HeadBytesMax]) + output.Marker(output.HeadBytesMax) + string(all[2*output.HeadBytesMax:])},
		{output.HeadBytesMax + 7, output.Marker(output.HeadBytesMax-7) + string(all[2*output.HeadBytesMax:])},
		{len(all) - 3, string(all[len(all)-3:])},
		{len(all) + 3, ""},
	} {
		if got := read(t, o, output.Query{Stream: output.Stderr, Offset: int64(c.at)}); got != c.want {
			t.Errorf("from %d: %d bytes, want %d", c.at, len(got), len(c.want))
		}
	}
}

func TestManyFollowWhileItRuns(t *testing.T) {
	t.Parallel()
	o := output.New(t.TempDir())
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			if got := read(t, o, output.Query{Follow: true, Stream: output.Stdout}); got != string(count(1<<20)) {
				t.Errorf("got %d bytes", len(got))
			}
		})
	}
	for rest := count(1 << 20); len(rest) > 0; rest = rest[min(1000, len(rest)):] {
		o.Write(output.Stdout, rest[:min(1000, len(rest))])
	}
	o.Close()
	readers.Wait()
}

func TestFollowingEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	r := output.New(t.TempDir()).Open(ctx, output.Query{Follow: true})
	defer r.Close()
	enough := errors.New("enough")
	cancel(enough)
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
}

func TestExcerptIsShortAndValid(t *testing.T) {
	t.Parallel()
	o := output.New(t.TempDir())
	o.Write(output.Stdout, []byte("short, \xff\xfe and not text"))
	if e := o.Excerpt(output.Stdout); e.Text != "short, \uFFFD\uFFFD and not text" || e.Truncated {
		t.Errorf("%+v", e)
	}
	for i := range 5000 {
		o.Write(output.Stderr, []byte(fmt.Sprintf("日本語 %d ", i)))
	}
	e := o.Excerpt(output.Stderr)
	if !e.Truncated || !utf8.ValidString(e.Text) || strings.ContainsRune(e.Text, '\uFFFD') || len(e.Text) > 5<<10 ||
		!strings.HasPrefix(e.Text, "日本語 0 ") || !strings.HasSuffix(e.Text, "日本語 4999 ") || !strings.Contains(e.Text, "bytes left out") {
		t.Errorf("%d bytes of %d: %.40q … %q", len(e.Text), e.Bytes, e.Text, e.Text[len(e.Text)-40:])
	}
}

func TestGoesOnWhereAnEarlierLifeWas(t *testing.T) {
	t.Parallel()
	all := count(output.HeadBytesMax + output.TailBytesMax + 99_999)
	for _, at := range []int{0, 7, output.HeadBytesMax - 1, output.HeadBytesMax, output.HeadBytesMax + 5, len(all) - 3} {
		dir := t.TempDir()
		o := output.New(dir)
		o.Write(output.Stdout, all[:at])
		again, err := output.Resume(dir) // the earlier life was killed: it closed nothing
		if err != nil {
			t.Fatal(err)
		}
		if got := again.Size(output.Stdout); got != int64(at) {
			t.Errorf("%d bytes, want %d", got, at)
		}
		printed := make(chan struct{})
		again.OnPrint(func() { close(printed) })
		again.Write(output.Stdout, all[at:])
		<-printed
		want := string(all[:output.HeadBytesMax]) + output.Marker(99_999) + string(all[len(all)-output.TailBytesMax:])
		if got := read(t, again, output.Query{}); got != want {
			t.Errorf("resumed at %d: %d bytes, want %d", at, len(got), len(want))
		}
		if e := again.Excerpt(output.Stdout); !strings.HasPrefix(e.Text, "100000000\n") || !strings.HasSuffix(e.Text, string(all[len(all)-100:])) || e.Bytes != int64(len(all)) {
			t.Errorf("resumed at %d: an excerpt of %d bytes: %.20q", at, len(e.Text), e.Text)
		}
		o.Close()
		again.Close()
	}
}

func TestAHoleIsMarkedAndWhatFollowsIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := output.New(dir)
	o.Write(output.Stdout, []byte("begin"))
	o.Skip(output.Stdout, 1005)
	o.Skip(output.Stdout, 3) // behind: nothing
	o.Write(output.Stdout, []byte("after"))
	o.Close()
	loaded, err := output.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]*output.Output{"printed": o, "loaded": loaded} {
		if got := read(t, o, output.Query{}); got != "begin"+output.Marker(1000)+"after" {
			t.Errorf("%s: %q", name, got)
		}
		if got := read(t, o, output.Query{Offset: 1007}); got != "ter" {
			t.Errorf("%s from within: %q", name, got)
		}
		if e := o.Excerpt(output.Stdout); e.Text != "begin"+output.Marker(1000)+"after" || !e.Truncated {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// TestReadersSeeNoByteInTheWrongPlace has readers that are overtaken by who prints.
func TestReadersSeeNoByteInTheWrongPlace(t *testing.T) {
	t.Parallel()
	all := count(output.HeadBytesMax + 5*output.TailBytesMax)
	o := output.New(t.TempDir())
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			r := o.Open(t.Context(), output.Query{Follow: true})
			defer r.Close()
			buf := make([]byte, 8<<10)
			for at := int64(0); ; {
				p, err := r.Next(buf)
				if errors.Is(err, io.EOF) && at == int64(len(all)) {
					return
				}
				if err != nil || p.Offset != at || string(p.Data) != string(all[p.Offset:p.Offset+int64(len(p.Data))]) {
					t.Errorf("a piece of %d bytes at %d, want at %d: %v", len(p.Data), p.Offset, at, err)
					return
				}
				at = p.End()
			}
		})
	}
	for rest := all; len(rest) > 0; rest = rest[min(100_000, len(rest)):] {
		o.Write(output.Stdout, rest[:min(100_000, len(rest))])
	}
	o.Close()
	readers.Wait()
}

func BenchmarkWrite(b *testing.B) {
	o, chunk := output.New(b.TempDir()), count(32<<10)
	defer o.Close()
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		o.Write(output.Stdout, chunk)
	}
}
