package process

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// A record is a file that says what runs, for a later life that finds it. It is
// two lines: the first is written before the program starts, so that even one
// that had just been started when the agent was killed is found by its token. It
// is not fsynced: when the machine goes down nothing runs any more.
//
// Records are used again and again, blank in between: making and removing a file
// costs more than running a short program needs.
type record struct {
	file *os.File
}

// recordBytes is the size of a record; what its lines leave is blank.
const recordBytes = 512

// recordHead is the first line of a record.
type recordHead struct {
	Token string `json:"token"`
	Boot  string `json:"boot,omitempty"` // of the machine
}

// recordStart is the second.
type recordStart struct {
	PID   int    `json:"pid"`             // and process group
	Start uint64 `json:"start,omitempty"` // in ticks since boot: tells it from a later process of the same id
}

// records are the records of one life.
type records struct {
	dir string

	mu   sync.Mutex
	made int
	idle []*record
}

// take gives out a record that says that a program with token is about to run.
func (rs *records) take(head recordHead) (*record, error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	var r *record
	if n := len(rs.idle); n > 0 {
		r, rs.idle = rs.idle[n-1], rs.idle[:n-1]
	} else {
		rs.made++
		f, err := os.OpenFile(filepath.Join(rs.dir, strconv.Itoa(rs.made)), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return nil, fmt.Errorf("record the attempt: %w", err)
		}
		r = &record{f}
	}
	if err := r.write(head); err != nil {
		rs.idle = append(rs.idle, r)
		return nil, fmt.Errorf("record the attempt: %w", err)
	}
	return r, nil
}

// adopt is a record of an earlier life, whose program is still wanted; nil
// where it is not to be had.
func (rs *records) adopt(name string) *record {
	if name == "" || name != filepath.Base(name) {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(rs.dir, name), os.O_WRONLY, 0)
	if err != nil {
		return nil
	}
	return &record{f}
}

// highest is the highest number of a record in dir.
func highest(dir string) (most int) {
	entries, _ := os.ReadDir(dir) // sweep reports what is wrong with it
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			most = max(most, n)
		}
	}
	return most
}

// name is by what a later life adopts the record.
func (r *record) name() string { return filepath.Base(r.file.Name()) }

// give takes a record back when its program and all it started are gone.
func (rs *records) give(r *record) {
	if r == nil {
		return
	}
	_ = r.write() // a record that stays names a token that nobody has
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.idle = append(rs.idle, r)
}

// close lets go of the files, and removes those that are blank.
func (rs *records) close() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, r := range rs.idle {
		_ = os.Remove(r.file.Name())
		r.file.Close()
	}
	rs.idle = nil
}

// started adds what is known once the program runs. Without it, as on a disk
// that has just filled up, the program is found by its token alone.
func (r *record) started(head recordHead, pid int) {
	_ = r.write(head, recordStart{pid, startTime(pid)})
}

// write replaces the lines of a record, in one call.
func (r *record) write(lines ...any) error {
	block := bytes.Repeat([]byte(" "), recordBytes)
	at := 0
	for _, v := range lines {
		data, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if at+len(data) >= recordBytes {
			return fmt.Errorf("a record of more than %d bytes", recordBytes)
		}
		at += copy(block[at:], append(data, '\n'))
	}
	_, err := r.file.WriteAt(block, 0)
	return err
}

// readRecord reads what there is of a record; of a blank one, nothing.
func readRecord(path string) (head recordHead, start recordStart, err error) {
	data, err := os.ReadFile(path)
	if err != nil || len(bytes.TrimSpace(data)) == 0 {
		return head, start, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&head); err != nil {
		return recordHead{}, start, nil //nolint:nilerr // cut off: its program was never started
	}
	_ = dec.Decode(&start) // not there if the agent was killed between the two
	return head, start, nil
}
