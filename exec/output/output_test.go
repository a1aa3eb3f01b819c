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
	for _, n := range []int{0, 1, head - 1, head, head + 1, head + tail, head + tail + 1, head + 3*tail + 12345} {
		all := count(n)
		for _, chunk := range []int{n + 1, 32 << 10, 999} {
			t.Run(fmt.Sprintf("%d by %d", n, chunk), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				o := output.New(dir)
				for rest := all; len(rest) > 0; rest = rest[min(chunk, len(rest)):] {
					o.Write(output.Stdout, rest[:min(chunk, len(rest))])
				}
				want := string(all)
				if lost := n - head - tail; lost > 0 {
					want = string(all[:head]) + output.Marker(int64(lost)) + string(all[n-tail:])
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
				if n == 0 {
					if left, _ := os.ReadDir(dir); len(left) > 0 {
						t.Errorf("nothing was printed, and there is %v", left)
					}
				}
			})
		}
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
		if got := read(t, o, output.Query{Offset: int64(c.at)}); got != c.want {
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
