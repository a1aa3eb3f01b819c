package consensus

import (
	"context"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// quietLogger passes the libraries' log on to slog, one step quieter: what they
// call an error they carry on from. What they say of a peer is quieter still:
// who comes and goes is told by those who watch over the connections, once.
type quietLogger struct {
	hclog.Logger // what is not overridden does nothing
	to           *slog.Logger
}

// streamEnded is what raft says, as an error, whenever a peer closes a stream.
const streamEnded = "failed to decode incoming command"

func raftLogger(to *slog.Logger) hclog.Logger {
	return quietLogger{Logger: hclog.NewNullLogger(), to: to}
}

func (l quietLogger) Log(level hclog.Level, msg string, args ...any) {
	out := slog.LevelDebug
	if level >= hclog.Error && msg != streamEnded && !aboutPeer(args) {
		out = slog.LevelWarn
	}
	if !l.to.Enabled(context.Background(), out) {
		return
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			args[i] = f[1:] // its values, without the verb to print them by
		}
	}
	l.to.Log(context.Background(), out, "raft: "+msg, args...)
}

// aboutPeer tells whether a message is about one other replica.
func aboutPeer(args []any) bool {
	for i := 0; i < len(args); i += 2 {
		if args[i] == "peer" || args[i] == "target" {
			return true
		}
	}
	return false
}

func (l quietLogger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l quietLogger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l quietLogger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l quietLogger) With(args ...any) hclog.Logger {
	return quietLogger{Logger: l.Logger, to: l.to.With(args...)}
}
func (l quietLogger) Named(string) hclog.Logger      { return l }
func (l quietLogger) ResetNamed(string) hclog.Logger { return l }
