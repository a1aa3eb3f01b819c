package store_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"labmesh"
	"labmesh/store"
)

// anyBenchRow draws rows of a benchmark as the log can bring them.
func anyBenchRow() *rapid.Generator[labmesh.BenchRow] {
	number := rapid.IntRange(0, 1<<31-1)
	shapes := rapid.MapOfN(rapid.String(), number, 0, 3)
	raw := rapid.Custom(func(t *rapid.T) json.RawMessage {
		env := rapid.MapOfN(rapid.String(), rapid.String(), 0, 3).Draw(t, "env")
		data, err := json.Marshal(env)
		if err != nil || len(env) == 0 {
			return nil
		}
		return data
	})
	return rapid.MakeCustom[labmesh.BenchRow](rapid.MakeConfig{Types: map[reflect.Type]*rapid.Generator[any]{
		reflect.TypeFor[time.Time]():       rapid.Map(rapid.Int64Range(1, 4e15), func(us int64) any { return time.UnixMicro(us).UTC() }),
		reflect.TypeFor[int]():             number.AsAny(),
		reflect.TypeFor[json.RawMessage](): raw.AsAny(),
		reflect.TypeFor[map[string]int](): rapid.Map(shapes, func(m map[string]int) any {
			if len(m) == 0 {
				return map[string]int(nil)
			}
			return m
		}),
		reflect.TypeFor[[]string](): rapid.Map(rapid.SliceOfN(rapid.String(), 0, 3), func(s []string) any {
			if len(s) == 0 {
				return []string(nil)
			}
			return s
		}),
		reflect.TypeFor[[]labmesh.BenchFlag](): rapid.Map(rapid.SliceOfN(rapid.String(), 0, 3), func(s []string) any {
			var flags []labmesh.BenchFlag
			for _, f := range s {
				flags = append(flags, labmesh.BenchFlag(f))
			}
			return flags
		}),
	}})
}

// TestRowsOfBenchmarksComeBackExactly: no field is lost, and nothing that was
// unknown becomes a number.
func TestRowsOfBenchmarksComeBackExactly(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := labmesh.Bench{Task: "t1", Attempt: 2, Worker: "w1", From: 3, ID: 1 << 40, Rows: rapid.SliceOfN(anyBenchRow(), 1, 3).Draw(t, "rows")}
		e := labmesh.Event{Index: 7, N: 1, At: time.UnixMicro(5), Type: labmesh.BenchRecorded, Bench: &want,
			Task: &labmesh.Task{ID: "t1", Spec: labmesh.Spec{Labels: map[string]string{"a": "b"}}}}
		var got []store.RecordedBench
		err := store.RowsOf(&e, func(table *store.Table, row store.Row) error {
			if len(row) != len(table.Columns) {
				t.Fatalf("%s: %d values for %d columns", table.Name, len(row), len(table.Columns))
			}
			if table != &store.BenchTable {
				if task, worker := row[table.Index("task_id")], row[table.Index("worker_id")]; task != "t1" || worker != "w1" {
					t.Fatalf("the event is of %v on %v", task, worker)
				}
				return nil
			}
			b, err := store.BenchOf(row)
			got = store.AddBench(got, b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || got[0].Position != (store.Position{Index: 7, N: 1}) {
			t.Fatalf("%d events: %+v", len(got), got)
		}
		if !reflect.DeepEqual(got[0].Bench, want) {
			t.Fatalf("got  %+v\nwant %+v", got[0].Bench, want)
		}
	})
}

// TestEveryColumnOfABenchmarkIsFilled: a row with all fields set leaves none NULL.
func TestEveryColumnOfABenchmarkIsFilled(t *testing.T) {
	t.Parallel()
	var full labmesh.BenchRow
	set(reflect.ValueOf(&full).Elem())
	e := labmesh.Event{Index: 7, N: 1, At: time.UnixMicro(5), Type: labmesh.BenchRecorded, Bench: &labmesh.Bench{Task: "t1", Attempt: 2, Worker: "w1", Rows: []labmesh.BenchRow{full}},
		Task: &labmesh.Task{ID: "t1", Spec: labmesh.Spec{Labels: map[string]string{"a": "b"}}}}
	err := store.RowsOf(&e, func(table *store.Table, row store.Row) error {
		for i, v := range row {
			if v == nil && table == &store.BenchTable {
				t.Errorf("%s is NULL", table.Columns[i].Name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// set gives v and all in it a value that is not zero.
func set(v reflect.Value) {
	switch v.Type() {
	case reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.UnixMicro(1)))
		return
	case reflect.TypeFor[json.RawMessage]():
		v.Set(reflect.ValueOf(json.RawMessage(`{"a":1}`)))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		set(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			set(v.Field(i))
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]int{"a": 1}))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		set(v.Index(0))
	case reflect.Array:
		for i := range v.Len() {
			set(v.Index(i))
		}
	case reflect.String:
		v.SetString("x")
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.Bool:
		v.SetBool(true)
	default:
		panic("no value for " + v.Type().String())
	}
}
