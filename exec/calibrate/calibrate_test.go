package calibrate

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labmesh"
)

const childVar = "CALIBRATE_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childVar) {
	case "measures":
		if err := json.NewEncoder(os.Stdout).Encode(Result{Kernel: "x", Calibration: labmesh.Calibration{Speed: 2}}); err != nil {
			panic(err)
		}
		os.Exit(0)
	case "hangs":
		time.Sleep(time.Hour)
	}
	os.Exit(m.Run())
}

func TestMeasure(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r, err := Measure(t.Context(), Config{Dir: dir, MemoryBytes: 1 << 30, scale: 0.02, rounds: 2})
	if err != nil || r.Speed <= 0 || r.GFLOPSOne <= 0 || r.GFLOPS <= 0 || r.MemoryGBs <= 0 || r.DiskMBs <= 0 || r.Kernel == "" || r.At.IsZero() {
		t.Errorf("%+v, %v", r, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
	if r, err := Measure(t.Context(), Config{scale: 0.01, rounds: 1}); err != nil || r.DiskMBs != 0 {
		t.Errorf("without a disk: %+v, %v", r, err)
	}
	if _, err := Measure(t.Context(), Config{Dir: filepath.Join(dir, "nonesuch"), scale: 0.01, rounds: 1}); err == nil {
		t.Error("a disk that is not there was measured")
	}
}

func TestMeasureEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if r, err := Measure(ctx, Config{scale: 0.5, rounds: 5}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestChild(t *testing.T) {
	t.Setenv(childVar, "measures")
	r, err := Child(os.Args[0])(t.Context(), t.TempDir(), 1<<30)
	if err != nil || r.Speed != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	t.Setenv(childVar, "hangs")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := Child(os.Args[0])(ctx, "", 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if _, err := Child("/nonesuch")(t.Context(), "", 0); err == nil {
		t.Error("a program that is not there measured")
	}
}

// TestSlowerThanItself: a machine is compared with the median of its own past, and
// only with what was measured in the same way, undisturbed.
func TestSlowerThanItself(t *testing.T) {
	t.Parallel()
	at := func(gflops, disk float64) Result {
		return Result{Kernel: "avx2", Calibration: labmesh.Calibration{GFLOPSOne: gflops, GFLOPS: 2 * gflops, Speed: gflops / 60, MemoryGBs: 10, DiskMBs: disk}}
	}
	path := filepath.Join(t.TempDir(), "speed.json")
	b, err := OpenBook(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []Result{at(60, 500), at(61, 300)} {
		if s := b.Slower(at(10, 10)); s != "" {
			t.Errorf("too little is known to say %q", s)
		}
		if err := b.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	busy, other := at(200, 5000), at(200, 5000)
	busy.Busy, other.Kernel = "yes", "avx512"
	for _, r := range []Result{at(59, 400), busy, other} {
		if err := b.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	for want, r := range map[string]Result{
		"":                                at(50, 250),
		"all processors together by 33 %": at(40, 400),
		"the disk by 75 % (100, usually 400 MB/s)": at(60, 100),
	} {
		if s := b.Slower(r); (s == "") != (want == "") || !strings.Contains(s, want) {
			t.Errorf("%+v: %q, want %q", r, s, want)
		}
	}
	again, err := OpenBook(path)
	if err != nil || len(again.entries) != 5 {
		t.Fatalf("read back: %d, %v", len(again.entries), err)
	}
	for range 2 * bookMax {
		if err := again.Add(at(60, 400)); err != nil {
			t.Fatal(err)
		}
	}
	if len(again.entries) != bookMax {
		t.Errorf("it remembers %d", len(again.entries))
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := OpenBook(path); err == nil || b == nil || len(b.entries) > 0 {
		t.Errorf("a damaged book: %+v, %v", b, err)
	}
}

func TestDue(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		last time.Time
		want time.Time
	}{{now.Add(-time.Hour), now.Add(23 * time.Hour)}, {now.Add(-48 * time.Hour), now.Add(-24 * time.Hour)}, {now.Add(time.Hour), now}} {
		b := &Book{entries: []Result{{Calibration: labmesh.Calibration{At: c.last}}}}
		if got := b.Due(now, 24*time.Hour); !got.Equal(c.want) {
			t.Errorf("measured %v: due %v, want %v", c.last, got, c.want)
		}
	}
	if got := new(Book).Due(now, time.Hour); !got.Equal(now) {
		t.Errorf("never measured: due %v", got)
	}
}

func BenchmarkMix(b *testing.B) {
	m := newMix()
	for b.Loop() {
		m.run(1000)
	}
}
