package exec_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/exectest"
)

// suite is a runner that records so many cases, one every pause.
type suite struct {
	cases int
	pause time.Duration
	long  int // bytes of each message
}

func (s suite) Run(_ context.Context, a exec.Attempt) labmesh.Outcome {
	for i := range s.cases {
		time.Sleep(s.pause)
		a.Record([]labmesh.TestCase{{Name: fmt.Sprint(i), Message: strings.Repeat("x", s.long)}})
	}
	return labmesh.Outcome{OK: true}
}

func TestCasesAreRecordedInOrderBeforeTheEnd(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]suite{
		"many at once": {2500, 0, 10}, "slow ones": {20, 70 * time.Millisecond, 10}, "long ones": {100, 0, 4000}, "none": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				commands, failures := 0, 0
				desk := &exectest.Desk{}
				desk.Fail = func(cmds []labmesh.Command) error {
					mu.Lock()
					defer mu.Unlock()
					if failures++; failures%3 == 2 {
						return errors.New("no leader")
					}
					for _, c := range cmds {
						if r, ok := c.(labmesh.RecordTests); ok {
							commands++
							if size := len(r.Cases) * (s.long + 128); len(r.Cases) > labmesh.CasesMax || size > 70<<10 {
								t.Errorf("%d cases of about %d bytes in one command", len(r.Cases), size)
							}
						}
					}
					return nil
				}
				_, stop := start(t, dir, 2, desk, s)
				defer stop()
				desk.Put(task("a", 0), task("b", 0))
				for _, id := range []labmesh.TaskID{"a", "b"} {
					if o, err := desk.Await(t.Context(), id); err != nil || !o.OK {
						t.Fatalf("%+v, %v", o, err)
					}
					got := desk.Cases(id)
					if len(got) != s.cases {
						t.Fatalf("%d of %d cases are on record when the task has ended", len(got), s.cases)
					}
					for i, c := range got {
						if c.Name != fmt.Sprint(i) {
							t.Fatalf("case %d is %s", i, c.Name)
						}
					}
				}
				if late := desk.Late(); len(late) > 0 {
					t.Errorf("declined: %d", len(late))
				}
				if most := 2 * (s.cases/2 + 1); commands > most && s.cases > 0 {
					t.Errorf("%d commands for %d cases", commands, 2*s.cases)
				}
			})
		})
	}
}

func TestCaseIsOnRecordWithinAFifthOfASecond(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		desk := &exectest.Desk{}
		_, stop := start(t, dir, 1, desk, suite{3, time.Second, 0})
		defer stop()
		desk.Put(task("a", 0))
		for i := 1; i <= 3; i++ {
			time.Sleep(time.Second + time.Duration(i)*time.Millisecond)
		}
		time.Sleep(200*time.Millisecond - 6*time.Millisecond)
		if n := len(desk.Cases("a")); n != 3 {
			t.Errorf("%d cases of 3", n)
		}
	})
}

func TestCasesThatNobodyWantsAreDropped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		desk := &exectest.Desk{}
		w, stop := start(t, dir, 1, desk, suite{1000, 10 * time.Millisecond, 0})
		defer stop()
		desk.Put(task("a", 0))
		time.Sleep(time.Second)
		desk.Take("a")
		time.Sleep(time.Minute)
		desk.Put(task("b", 0))
		if o, err := desk.Await(t.Context(), "b"); err != nil || !o.OK || len(desk.Cases("b")) != 1000 || w.Running() != 0 {
			t.Errorf("%+v, %v: %d cases", o, err, len(desk.Cases("b")))
		}
	})
}

// meter is a runner that records so many rows, each with so large a fingerprint.
type meter struct{ rows, env int }

func (m meter) Run(_ context.Context, a exec.Attempt) labmesh.Outcome {
	env := json.RawMessage(`{"a":"` + strings.Repeat("x", m.env) + `"}`)
	for i := range m.rows {
		a.RecordRows([]labmesh.BenchRow{{Run: "r", Repeat: i, Env: env}})
		time.Sleep(time.Millisecond)
	}
	return labmesh.Outcome{OK: true}
}

func TestRowsAreRecordedInOrderBeforeTheEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		desk := &exectest.Desk{}
		calls := 0
		desk.Fail = func(cmds []labmesh.Command) error {
			if calls++; calls%2 == 1 {
				return errors.New("no leader")
			}
			for _, c := range cmds {
				if r, ok := c.(labmesh.RecordBench); ok && (len(r.Rows) > labmesh.BenchRowsMax || len(r.Rows) > 5) {
					t.Errorf("%d rows of 12 KiB in one command", len(r.Rows))
				}
			}
			return nil
		}
		_, stop := start(t, dir, 1, desk, meter{300, 12 << 10})
		defer stop()
		desk.Put(task("a", 0))
		if o, err := desk.Await(t.Context(), "a"); err != nil || !o.OK {
			t.Fatalf("%+v, %v", o, err)
		}
		got := desk.Rows("a")
		if len(got) != 300 {
			t.Fatalf("%d of 300 rows are on record when the task has ended", len(got))
		}
		for i, r := range got {
			if r.Repeat != i {
				t.Fatalf("row %d is %d", i, r.Repeat)
			}
		}
	})
}
