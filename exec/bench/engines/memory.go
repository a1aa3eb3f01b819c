package engines

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"labmesh/exec/bench/py"
)

// Limits on what is remembered.
const (
	memoryBytesMax = 4 << 20
	answersMax     = 100
	lateMax        = time.Minute // for which it is believed that one that did not answer in time will not
)

// memory is what was answered, the newest last. It is kept in a file: a node that starts again knows
// at once what it can run, and asks in its own time.
type memory struct {
	Answers []answer `json:"answers"`
}

// answer is what a candidate answered.
type answer struct {
	Key     key       `json:"key"`
	Asked   time.Time `json:"asked"`
	Watched []stamp   `json:"watched"`
	Found   Found     `json:"found"`
}

// key tells one question from another.
type key struct {
	Engine string `json:"engine"`
	Path   string `json:"path"`
	Runner string `json:"runner"` // version of our script
	Env    string `json:"env"`    // hash of the environment
}

func keyOf(c candidate, env []string) key {
	sum := sha256.Sum256([]byte(strings.Join(append(env[:len(env):len(env)], c.command...), "\x00")))
	return key{c.engine, c.path, py.Version(), hex.EncodeToString(sum[:8])}
}

// stamp is how a file or directory was when the answer was given.
type stamp struct {
	Path string    `json:"path"`
	Size int64     `json:"size"`
	Time time.Time `json:"time"` // when it last changed
}

func stampOf(path string) stamp {
	s := stamp{Path: path}
	if info, err := os.Stat(path); err == nil {
		s.Time = info.ModTime().UTC()
		if !info.IsDir() {
			s.Size = info.Size()
		}
	}
	return s
}

// watch notes what the answer depends on: the program, and what it named itself.
func (a *answer) watch(paths []string) {
	a.Watched = []stamp{stampOf(a.Key.Path)}
	for _, p := range paths[:min(len(paths), watchMax)] {
		if filepath.IsAbs(p) {
			a.Watched = append(a.Watched, stampOf(p))
		}
	}
}

// answer is what c answered, if nothing has changed since.
func (m *memory) answer(c candidate, env []string) (answer, bool) {
	k := keyOf(c, env)
	for _, a := range m.Answers {
		if a.Key != k {
			continue
		}
		if a.Found.Late && time.Since(a.Asked) > lateMax {
			return answer{}, false
		}
		for _, s := range a.Watched {
			if now := stampOf(s.Path); !now.Time.Equal(s.Time) || now.Size != s.Size {
				return answer{}, false
			}
		}
		return a, true
	}
	return answer{}, false
}

// put replaces what was answered before by the same engine of the same path.
func (m *memory) put(a answer) {
	kept := m.Answers[:0]
	for _, b := range m.Answers {
		if b.Key.Engine != a.Key.Engine || b.Key.Path != a.Key.Path {
			kept = append(kept, b)
		}
	}
	m.Answers = append(kept, a)
	m.Answers = m.Answers[max(0, len(m.Answers)-answersMax):]
}

// read reads what an earlier process remembered. A file that is not there or
// makes no sense is nothing: everything is asked anew.
func (m *memory) read(file string) {
	info, err := os.Stat(file)
	if err != nil || info.Size() > memoryBytesMax {
		return
	}
	data, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(data, m) != nil {
		*m = memory{}
	}
}

// write keeps what is remembered; that it could not costs the next process some seconds.
func (m *memory) write(file string, logger *slog.Logger) {
	data, err := json.Marshal(m)
	if err == nil {
		if have, unread := os.ReadFile(file); unread == nil && string(have) == string(data) {
			return
		}
		_ = os.MkdirAll(filepath.Dir(file), 0o755)
		err = os.WriteFile(file, data, 0o600) // torn, it makes no sense to who reads it: that is allowed
	}
	if err != nil {
		logger.Debug("what is known of engines was not kept", "err", err)
	}
}
