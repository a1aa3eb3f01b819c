package process

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"labmesh/exec/keeper"
)

const (
	rssUnit      = 1024    // Maxrss counts KiB
	roundsMax    = 20      // looks for processes that fork while they are being killed
	environBytes = 4 << 10 // of an environment, to begin with
	statFields   = 22      // of /proc/PID/stat, up to the start time
)

// await waits until the program has ended, kills what it left, and reaps it.
func (p *program) await() (*os.ProcessState, error) {
	for {
		err := unix.Waitid(unix.P_PID, p.proc.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	p.ended()
	return p.proc.Wait()
}

// bootID names this boot of the machine.
func bootID() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it every record is looked into
	return string(bytes.TrimSpace(data))
}

// startTime is when a process started, in ticks since boot; 0 if there is none.
func startTime(pid int) uint64 {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// The second field is a name in brackets and may hold anything.
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) < statFields-2 {
		return 0
	}
	n, _ := strconv.ParseUint(string(fields[statFields-3]), 10, 64)
	return n
}

// killTokens kills every process that carries one of tokens in its
// environment, until there is none.
func killTokens(tokens map[string]bool) {
	for range roundsMax {
		if len(tokens) == 0 || killTokensOnce(tokens) == 0 {
			return
		}
	}
}

func killTokensOnce(tokens map[string]bool) (killed int) {
	names, err := processNames()
	if err != nil {
		return 0
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == os.Getpid() || !tokens[tokenOf(pid)] {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		if tokens[tokenOf(pid)] && alive(pid) { // still the same: fd holds on to what it was opened for
			_ = unix.PidfdSendSignal(fd, syscall.SIGKILL, nil, 0)
			killed++
		}
		unix.Close(fd)
	}
	return killed
}

// tokenOf is the attempt's token in the environment that a process was started with.
func tokenOf(pid int) string {
	env := environ(pid)
	const prefix = TokenVar + "="
	for len(env) > 0 {
		var v []byte
		v, env, _ = bytes.Cut(env, []byte{0})
		if bytes.HasPrefix(v, []byte(prefix)) {
			return string(v[len(prefix):])
		}
	}
	return ""
}

// environ is the environment that a process was started with; nothing where it is
// another user's, or gone. It is read by plain calls because all of /proc is, again
// and again: os.ReadFile makes twice as many.
func environ(pid int) []byte {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/environ", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	for errors.Is(err, unix.EINTR) {
		fd, err = unix.Open("/proc/"+strconv.Itoa(pid)+"/environ", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	env := make([]byte, 0, environBytes)
	for {
		env = slices.Grow(env, environBytes/2)
		n, err := unix.Read(fd, env[len(env):cap(env)])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil
		case n == 0:
			return env
		}
		env = env[:len(env)+n]
	}
}

// alive reports whether a process can still run: it is no zombie.
func alive(pid int) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	rest := bytes.TrimSpace(data[bytes.LastIndexByte(data, ')')+1:])
	return len(rest) > 0 && rest[0] != 'Z' && rest[0] != 'X'
}

// sweep ends what the records in dir say is running, but for those named. It returns how many records there were of this boot.
func sweep(ctx context.Context, dir string, records []string) (n int, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	boot, tokens := bootID(), make(map[string]bool)
	var over []string
	for _, e := range entries {
		if keeper.Owns(e.Name()) || slices.Contains(records, e.Name()) {
			continue // not a record, or one of a program that goes on
		}
		over = append(over, e.Name())
		head, start, err := readRecord(filepath.Join(dir, e.Name()))
		if err != nil {
			return n, err
		}
		if head.Token == "" || head.Boot != "" && head.Boot != boot {
			continue // nothing of it runs
		}
		n++
		tokens[head.Token] = true
		if start.Start != 0 && startTime(start.PID) == start.Start {
			_ = syscall.Kill(-start.PID, syscall.SIGKILL)
		}
	}
	killTokens(tokens)
	for _, name := range over {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return n, err
		}
	}
	return n, ctx.Err()
}
