package exec

import (
	"bufio"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

const (
	journalName     = ".begun"
	journalLinesMax = 20_000 // until it is set aside; two are kept
	recentMax       = 4096   // attempts that printed nothing and left nothing, known by name
)

// journal says which attempts were begun here, in this life and before, so that
// none is begun twice: a line is written before anything of the attempt runs. It
// is not fsynced: what it guards against is the end of this process, not of the machine.
type journal struct {
	path string
	past map[uint64]struct{} // begun in earlier lives

	mu     sync.Mutex
	file   *os.File
	lines  int
	recent map[uint64]struct{}
	ring   []uint64
	next   int
}

func openJournal(root string) (*journal, error) {
	j := &journal{path: filepath.Join(root, journalName), past: make(map[uint64]struct{}), recent: make(map[uint64]struct{})}
	for _, path := range []string{j.path + ".old", j.path} {
		if err := j.load(path); err != nil {
			return nil, fmt.Errorf("open journal: %w", err)
		}
	}
	return j, j.rotate()
}

// load reads what an earlier life wrote.
func (j *journal) load(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if sum, err := strconv.ParseUint(lines.Text(), 16, 64); err == nil {
			j.past[sum] = struct{}{}
		}
	}
	return lines.Err()
}

// rotate sets the file aside once it is long, and opens it. The caller holds mu, or is alone.
func (j *journal) rotate() error {
	if j.file != nil {
		j.file.Close()
		j.file, j.lines = nil, 0
		if err := os.Rename(j.path, j.path+".old"); err != nil {
			return err
		}
	} else if j.lines = len(j.past); j.lines > journalLinesMax {
		if err := os.Rename(j.path, j.path+".old"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		j.lines = 0
	}
	var err error
	j.file, err = os.OpenFile(j.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	return err
}

// begin writes down that k is about to begin; first is false when it was begun before.
func (j *journal) begin(k key) (first bool, err error) {
	sum := k.sum()
	if _, begun := j.past[sum]; begun {
		return false, nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lines >= journalLinesMax || j.file == nil {
		if err := j.rotate(); err != nil {
			return false, err
		}
	}
	j.lines++
	_, err = j.file.Write(append(strconv.AppendUint(nil, sum, 16), '\n'))
	return true, err
}

// quiet remembers that k ended and left nothing on disk.
func (j *journal) quiet(k key) {
	j.mu.Lock()
	defer j.mu.Unlock()
	sum := k.sum()
	if len(j.ring) < recentMax {
		j.ring = append(j.ring, sum)
	} else {
		delete(j.recent, j.ring[j.next])
		j.ring[j.next] = sum
		j.next = (j.next + 1) % recentMax
	}
	j.recent[sum] = struct{}{}
}

// wasQuiet reports whether k is known to have ended and left nothing.
func (j *journal) wasQuiet(k key) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, ok := j.recent[k.sum()]
	return ok
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}

// sum stands for k in the journal.
func (k key) sum() uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(k.task)) // never errs
	_, _ = h.Write(strconv.AppendInt([]byte{0}, int64(k.attempt), 10))
	return h.Sum64()
}
