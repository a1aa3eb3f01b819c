package lab

import (
	"bytes"
	"io"
	"sync"
)

// prefixed writes whole lines to w, each behind the name of who said it.
func prefixed(w io.Writer, name string) io.Writer { return &prefixer{w: w, name: name} }

type prefixer struct {
	w    io.Writer
	name string

	mu   sync.Mutex
	part []byte // a line that has not ended
}

func (p *prefixer) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.part = append(p.part, data...)
	for {
		line, rest, ok := bytes.Cut(p.part, []byte("\n"))
		if !ok {
			return len(data), nil
		}
		if _, err := p.w.Write([]byte(p.name + "  " + string(line) + "\n")); err != nil {
			return 0, err
		}
		p.part = append(p.part[:0], rest...)
	}
}
