package store_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"labmesh/store"
	"labmesh/store/storetest"
)

// stream is rows of all tables as an Encoder writes them.
func stream(t testing.TB) ([]byte, []store.Row) {
	t.Helper()
	var m storetest.Mesh
	var b bytes.Buffer
	enc, err := store.NewEncoder(&b, 0, 9)
	if err != nil {
		t.Fatal(err)
	}
	var rows []store.Row
	events := append(m.FinishBatch(4), m.Worker("w1", "worker_joined", "active")...)
	events = append(events, m.Tests(storetest.Cases(5)...)...)
	events = append(events, m.Bench(storetest.BenchRows(4)...)...)
	for i := range events {
		err := store.RowsOf(&events[i], func(table *store.Table, row store.Row) error {
			rows = append(rows, row)
			for i, known := range store.Tables() {
				if known == table {
					return enc.Row(i, row)
				}
			}
			return errors.New("no such table")
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), rows
}

func readAll(data []byte) (rows []store.Row, err error) {
	dec, err := store.NewDecoder(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	for {
		_, row, err := dec.Row()
		if errors.Is(err, io.EOF) && !errors.Is(err, store.ErrRows) {
			return rows, nil
		}
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
}

func TestRowsComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	data, want := stream(t)
	got, err := readAll(data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestNoPartOfAStreamPassesForTheWhole(t *testing.T) {
	t.Parallel()
	data, _ := stream(t)
	for n := range data {
		if _, err := readAll(data[:n]); !errors.Is(err, store.ErrRows) {
			t.Fatalf("the first %d of %d bytes: %v", n, len(data), err)
		}
		flipped := bytes.Clone(data)
		flipped[n] ^= 1 << (n % 8)
		if _, err := readAll(flipped); !errors.Is(err, store.ErrRows) {
			t.Fatalf("a bit of byte %d is flipped: %v", n, err)
		}
	}
}

func FuzzDecoder(f *testing.F) {
	data, _ := stream(f)
	f.Add(data)
	f.Add(data[:len(data)/2])
	f.Add([]byte("labmesh-rows-3\n\x00\x09\x01\x01\xff\xff\xff\xff\x7f"))
	f.Fuzz(func(t *testing.T, data []byte) {
		rows, err := readAll(data)
		if err != nil {
			if !errors.Is(err, store.ErrRows) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		for _, row := range rows { // what passes can be stored
			for _, v := range row {
				switch v := v.(type) {
				case nil, string, int64, float64, bool, time.Time:
				case json.RawMessage:
					if !json.Valid(v) {
						t.Fatalf("%q passes for JSON", v)
					}
				default:
					t.Fatalf("a value of %T", v)
				}
			}
		}
	})
}

func TestRowsOfOddEventsCanBeWritten(t *testing.T) {
	t.Parallel()
	var m storetest.Mesh
	task, events := m.Finish()
	task.Spec.Config = json.RawMessage(`{"broken`)
	task.Spec.Name = "bad \xff utf-8"
	task.Error = strings.Repeat("x", 1<<20)
	row, err := store.TaskRow(&task, 1)
	if err != nil {
		t.Fatal(err)
	}
	back, err := store.TaskOf(row)
	if err != nil {
		t.Fatal(err)
	}
	if string(back.Spec.Config) != `"{\"broken"` || back.Spec.Name != "bad \uFFFD utf-8" || len(back.Error) != 1<<20 {
		t.Errorf("came back as config %s, name %q", back.Spec.Config, back.Spec.Name)
	}
	events[0].Attempt.Seconds = math.MaxFloat64 // more than single precision holds
	if err := store.RowsOf(&events[0], func(*store.Table, store.Row) error { return nil }); err != nil {
		t.Error(err)
	}
	if _, err := store.TaskOf(row[:5]); err == nil {
		t.Error("a row that is too short is a task")
	}
	row[0] = 7.5
	if _, err := store.TaskOf(row); err == nil {
		t.Error("a number is a task id")
	}
}

func FuzzTaskOf(f *testing.F) {
	f.Add(`{"args":[1]}`, "name", int64(3), `{"env":{"A":"b"}}`)
	f.Fuzz(func(t *testing.T, config, name string, n int64, spec string) {
		var m storetest.Mesh
		task, _ := m.Finish()
		row, err := store.TaskRow(&task, 1)
		if err != nil {
			t.Fatal(err)
		}
		row[8], row[9], row[13], row[25] = n, json.RawMessage(config), name, json.RawMessage(spec)
		back, err := store.TaskOf(row)
		if err == nil && back.ID != task.ID {
			t.Errorf("task %s came back as %s", task.ID, back.ID)
		}
	})
}
