package keeper

import (
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"labmesh/exec/output"
)

const readBytesMax = 32 << 10 // of output, in one read

// drain reads what a program prints while no agent is there into a directory
// that the next agent reads from.
type drain struct {
	dir     string
	out     *output.Output
	files   [2]*os.File
	made    sync.Once
	readers sync.WaitGroup
}

// drain begins to read what all programs print.
func (k *keeper) drain() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.programs {
		if p.drain != nil || p.pipes == [2]int{-1, -1} {
			continue
		}
		k.spools++
		dir := filepath.Join(k.dir, spoolPrefix+strconv.FormatUint(p.ID, 16)+"-"+strconv.Itoa(k.spools))
		p.drain = &drain{dir: dir, out: output.New(dir)}
		for i, s := range []output.Stream{output.Stdout, output.Stderr} {
			p.drain.start(i, p.pipes[i], s)
		}
	}
}

// start begins to read one pipe, of which it makes a file of its own.
func (d *drain) start(i, fd int, s output.Stream) {
	if fd < 0 {
		return
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return // what it prints waits in the pipe
	}
	_ = unix.SetNonblock(own, true)
	f := os.NewFile(uintptr(own), string(s))
	d.files[i] = f
	d.readers.Go(func() {
		buf := make([]byte, readBytesMax)
		for {
			n, err := f.Read(buf)
			if n > 0 {
				d.made.Do(func() { _ = os.Mkdir(d.dir, 0o700) }) // without it the output is lost, and counted
				d.out.Write(s, buf[:n])
			}
			if err != nil { // the end, or settle's deadline
				return
			}
		}
	})
}

// settle stops reading what a program prints. The caller holds mu.
func (k *keeper) settle(p *program) {
	d := p.drain
	if d == nil {
		return
	}
	p.drain = nil
	for _, f := range d.files {
		if f != nil {
			_ = f.SetReadDeadline(time.Unix(1, 0))
		}
	}
	d.readers.Wait()
	for _, f := range d.files {
		if f != nil {
			f.Close()
		}
	}
	d.out.Close()
	if d.out.Excerpt(output.Stdout).Bytes+d.out.Excerpt(output.Stderr).Bytes > 0 {
		p.Spools = append(p.Spools, d.dir)
	}
}
