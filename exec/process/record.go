package process

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// A record is a file that says what runs, for a later life that finds it. It is
// two lines: the first is written before the program starts, so that even one
// that had just been started when the agent was killed is found by its token. It
// is not fsynced: when the machine goes down nothing runs any more.
type record struct {
	path string
	file *os.File
}

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

func newRecord(dir, token, boot string) (*record, error) {
	path := filepath.Join(dir, token)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	r := &record{path, f}
	if err := r.line(recordHead{token, boot}); err != nil {
		r.remove()
		return nil, fmt.Errorf("record the attempt: %w", err)
	}
	return r, nil
}

// started adds what is known once the program runs. Without it, as on a disk
// that has just filled up, the program is found by its token alone.
func (r *record) started(pid int) {
	_ = r.line(recordStart{pid, startTime(pid)})
	r.file.Close()
	r.file = nil
}

func (r *record) line(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = r.file.Write(append(data, '\n'))
	return err
}

func (r *record) remove() {
	if r == nil {
		return
	}
	if r.file != nil {
		r.file.Close()
	}
	_ = os.Remove(r.path) // one that stays names a token that nobody has
}

// readRecord reads what there is of a record.
func readRecord(path string) (head recordHead, start recordStart, err error) {
	f, err := os.Open(path)
	if err != nil {
		return head, start, err
	}
	defer f.Close()
	dec := json.NewDecoder(f)
	if err := dec.Decode(&head); err != nil {
		return recordHead{Token: filepath.Base(path)}, start, nil //nolint:nilerr // cut off; the name says enough
	}
	_ = dec.Decode(&start) // not there if the agent was killed between the two
	return head, start, nil
}
