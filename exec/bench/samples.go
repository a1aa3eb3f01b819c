package bench

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
)

// samplesName is the file among the task's outputs, below .labmesh, that holds the raw times:
// one JSON object a line, compressed, for each row that has any.
const (
	samplesName = "samples.json.gz"
	samplesRef  = ".labmesh/" + samplesName // as rows name it
)

// sampleLine is one line of it.
type sampleLine struct {
	Run    string    `json:"run_id"`
	Repeat int       `json:"repeat"`
	Arm    string    `json:"arm,omitempty"`
	Batch  int       `json:"batch"`
	Wall   []float64 `json:"wall_ms"`
	Device []float64 `json:"device_ms,omitempty"`
}

// samples writes the raw times of an attempt. Each line is a member of its own of
// the gzip file: those that are there can be read, whatever becomes of the next.
type samples struct {
	dir  string
	size int64 // of what is whole
	err  error // why no more is written
}

// add writes a line, or nothing of it.
func (s *samples) add(l sampleLine) error {
	if s.err != nil {
		return s.err
	}
	if s.err = os.MkdirAll(s.dir, 0o700); s.err != nil {
		return s.err
	}
	f, err := os.OpenFile(filepath.Join(s.dir, samplesName), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		s.err = err
		return err
	}
	size, err := s.append(f, l)
	if err != nil {
		err = errors.Join(err, f.Truncate(s.size))
	} else {
		s.size = size
	}
	s.err = errors.Join(err, f.Close())
	return s.err
}

func (s *samples) append(f *os.File, l sampleLine) (size int64, err error) {
	if err := f.Truncate(s.size); err != nil { // of what an earlier life of the attempt left
		return 0, err
	}
	if _, err = f.Seek(s.size, 0); err != nil {
		return 0, err
	}
	z := gzip.NewWriter(f)
	if err := errors.Join(json.NewEncoder(z).Encode(l), z.Close()); err != nil {
		return 0, err
	}
	return f.Seek(0, 1)
}
