package engines

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"labmesh"
	"labmesh/bench"
)

// Limits on a probe.
const (
	limit        = 20 * time.Second // to import torch took 0.8 to 2 s; a broken CUDA may hang
	answerMax    = 1 << 20          // bytes that it prints
	wordsMax     = 8 << 10          // bytes of what it says of errors
	reasonMax    = 500              // characters of a reason
	pipesMax     = time.Second      // for those who hold its output open when it has ended
	devicesMax   = 256
	watchMax     = 64
	versionMax   = 100
	transformers = "transformers"
)

// environment is what a probe's hello says of what it is made of, as far as it matters here.
type environment struct {
	Watch        []string          `json:"watch"`  // files and directories that change when the answer may
	Absent       map[string]string `json:"absent"` // by class of device
	Transformers string            `json:"transformers"`
}

// ask asks a candidate what it can do.
func (f *Finder) ask(ctx context.Context, c candidate) answer {
	a := answer{Key: keyOf(c, f.cfg.Env), Asked: time.Now().UTC()}
	a.Found = Found{Engine: labmesh.Engine{Name: c.engine, Path: c.path}}
	said, why, late := f.probe(ctx, c)
	a.Found.Late = late
	var env environment
	_ = json.Unmarshal(said.Env, &env) // nothing where it says nothing
	a.watch(env.Watch)
	switch {
	case why != "":
		a.Found.Reason = fmt.Sprintf("%s: %s", c.path, why)
	case said.Kind == bench.EventFatal:
		a.Found.Reason = said.Message
	default:
		a.Found.Version, a.Found.Command, a.Found.Env = cut(said.RunnerVersion, versionMax), c.command, c.env
		a.Found.Devices, a.Found.Absent = said.Devices, env.Absent
		if env.Transformers != "" {
			a.Found.Tools = map[string]string{transformers: cut(env.Transformers, versionMax)}
		}
	}
	a.Found.Reason = cut(a.Found.Reason, reasonMax)
	return a
}

// probe runs the probe of a candidate. It returns its hello, or fatal, or else why
// there is none, and whether that is because its time was up.
func (f *Finder) probe(ctx context.Context, c candidate) (said bench.Event, why string, late bool) {
	bounded, cancel := context.WithTimeout(ctx, f.cfg.Limit)
	defer cancel()
	out, words := &head{most: answerMax}, &tail{most: wordsMax}
	cmd := exec.CommandContext(bounded, c.command[0], append(c.command[1:len(c.command):len(c.command)], "probe")...)
	cmd.Env = append(f.cfg.Env[:len(f.cfg.Env):len(f.cfg.Env)], c.env...)
	cmd.Dir = os.TempDir() // no .python-version or the like decides
	cmd.Stdin = strings.NewReader(fmt.Sprintf("{\"v\":%d}", bench.Protocol))
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = out, words, pipesMax
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	group := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = group
	err := cmd.Run()
	if cmd.Process != nil {
		_ = group() // what it left running
	}
	if said, ok := answerIn(out.Bytes()); ok {
		return said, "", false
	}
	var exit *exec.ExitError
	switch {
	case errors.Is(bounded.Err(), context.DeadlineExceeded):
		return said, fmt.Sprintf("%s did not answer in %s: its installation, or the driver of a device, hangs", c.engine, f.cfg.Limit), true
	case errors.As(err, &exit):
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return said, fmt.Sprintf("%s was ended by the signal %s while it started%s", c.engine, ws.Signal(), words.last()), false
		}
		return said, fmt.Sprintf("it ended with exit code %d and no answer%s", exit.ExitCode(), words.last()), false
	case err != nil:
		return said, err.Error(), false
	}
	return said, "it gave no answer that can be understood" + words.last(), false
}

// answerIn finds the hello or fatal of a probe among what it printed.
func answerIn(printed []byte) (bench.Event, bool) {
	for line := range bytes.Lines(printed) {
		var e bench.Event
		if json.Unmarshal(line, &e) != nil || e.V != bench.Protocol {
			continue
		}
		switch {
		case e.Kind == bench.EventHello && len(e.Devices) > 0 && len(e.Devices) <= devicesMax:
			return e, true
		case e.Kind == bench.EventFatal && e.Message != "":
			return e, true
		}
	}
	return bench.Event{}, false
}

// head keeps the first bytes of what is written.
type head struct {
	bytes.Buffer
	most int
}

func (h *head) Write(p []byte) (int, error) {
	h.Buffer.Write(p[:min(len(p), h.most-h.Len())])
	return len(p), nil
}

// tail keeps the last bytes of what is written.
type tail struct {
	kept []byte
	most int
}

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p[max(0, len(p)-t.most):]...)
	t.kept = t.kept[max(0, len(t.kept)-t.most):]
	return len(p), nil
}

// last is the last line with something on it, to be put behind another word.
func (t *tail) last() string {
	text := strings.TrimSpace(strings.ToValidUTF8(string(t.kept), "?"))
	line := strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
	if line == "" {
		return ""
	}
	return ": " + line
}

// cut makes a text of at most so many bytes, of whole characters.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-len("…")], "") + "…"
}
