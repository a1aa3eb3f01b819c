package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"labmesh/client"
)

// app is what all commands share: the streams, the environment and the global flags.
type app struct {
	in     io.Reader
	out    io.Writer // results
	err    io.Writer // everything else
	lookup func(string) (string, bool)
	now    func() time.Time

	addr, key, dataDir string
	json, noColor      bool

	asked bool // a node was asked: a refusal is about the key
	began bool // the command line was understood: errors are no longer about usage
}

func newApp(in io.Reader, out, errw io.Writer, lookup func(string) (string, bool)) *app {
	return &app{in: in, out: &lockedWriter{w: out}, err: &lockedWriter{w: errw}, lookup: lookup, now: time.Now}
}

// lockedWriter lets several goroutines write to one stream, a whole write at a time.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// client is a client of the node that the global flags or this machine name.
func (a *app) client() (*client.Client, error) { return a.patientClient(0) }

// patientClient is a client that waits longer than others for a node that is
// not well; 0 is the usual time.
func (a *app) patientClient(patience time.Duration) (*client.Client, error) {
	cfg, err := client.Discover(client.Where{Addr: a.addr, Key: a.key, DataDir: a.dataDir, Getenv: a.getenv})
	if err != nil {
		return nil, err
	}
	cfg.UserAgent = "labmesh/" + version()
	cfg.Patience = patience
	a.asked = true
	return client.New(cfg)
}

func (a *app) getenv(name string) string {
	value, _ := a.lookup(name)
	return value
}

// explain says on stderr what went wrong, in one line.
func (a *app) explain(err error) {
	if err == nil || err.Error() == "" {
		return
	}
	message := strings.TrimSpace(err.Error())
	if exitCode(err) == exitDenied && a.asked && message == "Authentication required" {
		message += " (pass a key with --api-key, or as the user who runs the node let labmesh find it)"
	}
	fmt.Fprintln(a.err, a.paint(a.err, red, "labmesh:"), message)
}

// note says something on stderr.
func (a *app) note(format string, args ...any) { fmt.Fprintf(a.err, format+"\n", args...) }

// printJSON prints v as a result.
// show asks the node and prints what it says: as JSON with --json, else by print.
func show[T any](ctx context.Context, a *app, ask func(context.Context, *client.Client) (T, error), print func(T) error) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	v, err := ask(ctx, c)
	switch {
	case err != nil:
		return err
	case a.json:
		return a.printJSON(v)
	}
	return print(v)
}

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// Colours, as terminals take them.
const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	dim    = "\x1b[2m"
	bold   = "\x1b[1m"
	plain  = "\x1b[0m"
)

// paint colours s when w is a terminal and colour is wanted.
func (a *app) paint(w io.Writer, colour, s string) string {
	if s == "" || a.noColor || a.getenv("NO_COLOR") != "" || !isTerminal(w) {
		return s
	}
	return colour + s + plain
}

func isTerminal(w io.Writer) bool {
	if l, ok := w.(*lockedWriter); ok {
		w = l.w
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
