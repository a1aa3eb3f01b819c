package node

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/exec/output"
	"labmesh/node/httpapi"
)

// Waits of whoever reads output.
const (
	followRetry = 250 * time.Millisecond // before an output that broke off is sought again
	followTries = 4                      // to reach a worker that is there, for an attempt that is over
)

// Logs sends one stream of a task's output, from wherever it is: the worker, the
// node that has a copy, or the task's result. When it is followed it begins as
// soon as there is an attempt, goes on with the next when one is lost, and ends
// with the task.
func (s *service) Logs(ctx context.Context, r httpapi.LogRequest, send func(api.LogFrame) error) error {
	t, err := s.Task(ctx, r.Task)
	if err != nil {
		return err
	}
	if r.Attempt > t.Attempt {
		return labmesh.Refuse(labmesh.NotFound, "task %s has no attempt %d", r.Task, r.Attempt)
	}
	f := &follower{s: s, req: r, send: send, at: r.After}
	switch newest := t.Attempt; {
	case r.Attempt > 0 && r.After.Attempt != r.Attempt:
		f.at = api.LogPosition{Attempt: r.Attempt}
	case f.at.Attempt > 0:
	case t.Phase == labmesh.Assigned: // its worker may not have heard of it yet. What there is to read is the attempt before.
		f.at.Attempt = max(newest-1, 1)
	default:
		f.at.Attempt = max(newest, 1)
	}
	if r.Follow { // so that whoever asked knows that it is answered
		if err := send(api.LogFrame{Kind: api.LogStill, At: f.at}); err != nil {
			return err
		}
	}
	return f.run(ctx)
}

// follower sends the output of one attempt after another.
type follower struct {
	s     *service
	req   httpapi.LogRequest
	send  func(api.LogFrame) error
	at    api.LogPosition // what comes next
	shown int             // the attempt that was last spoken of
	sent  bool            // something was sent of it
	tries int             // to reach the worker of an attempt that is over
}

// standing is where one attempt of a task stands.
type standing struct {
	worker labmesh.WorkerID
	begun  bool // there may be output
	over   bool // there will be no more
	never  bool // it is over and never began
}

func standingOf(t *labmesh.Task, n int) standing {
	for _, a := range slices.Backward(t.History) {
		if a.Number == n {
			return standing{worker: a.Worker, begun: true, over: true, never: a.Cause == labmesh.CauseOffer}
		}
	}
	switch {
	case n > t.Attempt:
		return standing{over: t.Phase.Final(), never: t.Phase.Final()}
	case n < t.Attempt:
		return standing{over: true, never: true}
	case t.Phase.Final():
		return standing{worker: t.Worker, begun: true, over: true, never: t.Started.IsZero()}
	}
	return standing{worker: t.Worker, begun: t.Phase == labmesh.Running || t.Phase == labmesh.Cancelling}
}

func (f *follower) run(ctx context.Context) error {
	for {
		changed := f.s.n.replica.Changed()
		t, err := f.s.Task(ctx, f.req.Task)
		if err != nil {
			return err
		}
		done := false
		switch st := standingOf(&t, f.at.Attempt); {
		case f.at.Attempt > t.Attempt && t.Phase.Final(), !st.begun && !f.req.Follow:
			return nil
		case st.never:
			done = true
		case st.begun:
			if done, err = f.attempt(ctx, &t, st); err != nil {
				return err
			}
			changed = nil // much may change in the mesh, and whoever is asked again is asked for much
		}
		if done {
			if !f.req.Follow || f.req.Attempt > 0 {
				return nil
			}
			f.at, f.tries = api.LogPosition{Attempt: f.at.Attempt + 1}, 0
			continue
		}
		if err := pause(ctx, changed); err != nil {
			return err
		}
	}
}

// pause waits for changed or, without it, for a moment.
func pause(ctx context.Context, changed <-chan struct{}) error {
	var timer <-chan time.Time
	if changed == nil {
		timer = time.After(followRetry)
	}
	select {
	case <-changed:
	case <-timer:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// sendError is an error of whoever takes the output.
type sendError struct{ error }

func (e sendError) Unwrap() error { return e.error }

// deliver sends what comes next of an attempt, whatever part of it is sent again.
func (f *follower) deliver(g api.LogFrame) error {
	if g.Kind != api.LogData && g.Kind != api.LogGap {
		return nil
	}
	after := g.After()
	if after.Offset <= f.at.Offset {
		return nil
	}
	if missing := g.At.Offset - f.at.Offset; missing > 0 {
		if err := f.say(api.LogFrame{Kind: api.LogGap, At: f.at, Missing: missing}); err != nil {
			return err
		}
		f.at = g.At
	}
	if known := f.at.Offset - g.At.Offset; g.Kind == api.LogData {
		g.Data = g.Data[known:]
	} else {
		g.Missing -= known
	}
	g.At = f.at
	f.at = after
	return f.say(g)
}

func (f *follower) say(g api.LogFrame) error {
	f.sent = true
	if err := f.send(g); err != nil {
		return sendError{err}
	}
	return nil
}

func (f *follower) note(format string, args ...any) error {
	return f.say(api.LogFrame{Kind: api.LogNote, At: f.at, Data: fmt.Appendf(nil, format, args...)})
}

// attempt sends what there is of the attempt that is next, and while it is
// followed what comes. It reports whether that was all there will be.
func (f *follower) attempt(ctx context.Context, t *labmesh.Task, st standing) (done bool, err error) {
	if f.shown != f.at.Attempt {
		if f.shown > 0 {
			if err := f.say(api.LogFrame{Kind: api.LogBegin, At: api.LogPosition{Attempt: f.at.Attempt}}); err != nil {
				return false, err
			}
		}
		f.shown = f.at.Attempt
	}
	follow := f.req.Follow && !st.over
	whole, err := f.fromWorker(ctx, st, follow)
	switch {
	case err == nil:
		return whole || !follow, nil
	case errors.As(err, &sendError{}) || ctx.Err() != nil:
		return false, err
	case follow: // it may come back; until then there is what is copied
		_, _, err := f.fromCopies(ctx, false)
		return false, err
	}
	if labmesh.ReasonOf(err) != labmesh.NotFound && f.there(f.nodeOf(st.worker)) && f.tries < followTries {
		f.tries++
		return false, nil
	}
	return true, f.fromElsewhere(ctx, t, st, err)
}

func (f *follower) nodeOf(id labmesh.WorkerID) labmesh.NodeID {
	if w, ok := f.s.n.replica.View().Worker(id); ok {
		return w.Node
	}
	return ""
}

func (f *follower) there(node labmesh.NodeID) bool {
	return node != "" && (node == f.s.n.host.ID() || f.s.n.host.Alive(node))
}

// fromWorker sends what the attempt's own node has, to its end, and reports
// whether that is the attempt's.
func (f *follower) fromWorker(ctx context.Context, st standing, follow bool) (whole bool, err error) {
	node := f.nodeOf(st.worker)
	if !f.there(node) {
		return false, labmesh.Refuse(labmesh.Unavailable, "it is on worker %s, which is not there", st.worker)
	}
	reply, err := f.s.n.readLogs(ctx, node, logsRequest{
		Task: f.req.Task, Attempt: f.at.Attempt, Stream: output.Stream(f.req.Stream), Offset: f.at.Offset, Follow: follow,
	}, f.deliver)
	return reply.Whole, err
}

// source is a copy of an output.
type source struct {
	node  labmesh.NodeID
	reply logsReply
}

// fromCopies sends what other nodes have copied, up to the first hole unless
// holes are to be passed. It reports whether there is a copy, and whether that
// was all of the output.
func (f *follower) fromCopies(ctx context.Context, holes bool) (found, whole bool, err error) {
	for _, c := range f.findCopies(ctx) {
		found = true
		if c.reply.Size <= f.at.Offset && !c.reply.Whole {
			continue
		}
		_, err := f.s.n.readLogs(ctx, c.node, logsRequest{
			Task: f.req.Task, Attempt: f.at.Attempt, Stream: output.Stream(f.req.Stream), Offset: f.at.Offset, Copy: true,
		}, func(g api.LogFrame) error {
			if !holes && (g.Kind == api.LogGap || g.At.Offset > f.at.Offset) {
				return errHole
			}
			return f.deliver(g)
		})
		switch {
		case errors.As(err, &sendError{}) || ctx.Err() != nil:
			return found, false, err
		case err == nil && c.reply.Whole:
			return found, true, nil
		}
	}
	return found, false, nil
}

// findCopies asks all nodes that are there for copies, the best first.
func (f *follower) findCopies(ctx context.Context) []source {
	req := logsRequest{Task: f.req.Task, Attempt: f.at.Attempt, Stream: output.Stream(f.req.Stream), Copy: true, Look: true}
	var mu sync.Mutex
	var found []source
	var asking sync.WaitGroup
	for _, node := range f.s.n.members.nodes() {
		if !f.there(node) {
			continue
		}
		asking.Go(func() {
			reply, err := f.s.n.lookFor(ctx, node, req)
			if err != nil {
				return // it has none, or cannot be asked
			}
			mu.Lock()
			defer mu.Unlock()
			found = append(found, source{node, reply})
		})
	}
	asking.Wait()
	slices.SortFunc(found, func(a, b source) int {
		switch {
		case a.reply.Whole != b.reply.Whole && a.reply.Whole:
			return -1
		case a.reply.Whole != b.reply.Whole:
			return 1
		}
		return int(min(max(b.reply.Size-a.reply.Size, -1), 1))
	})
	return found
}

// lookFor asks a node what it has of an output.
func (n *Node) lookFor(ctx context.Context, node labmesh.NodeID, req logsRequest) (logsReply, error) {
	if node == n.host.ID() {
		r, reply, err := n.localLogs(ctx, req)
		if err != nil {
			return reply, err
		}
		return reply, r.Close()
	}
	body, reply, err := n.openLogs(ctx, node, req)
	if err != nil {
		return reply, err
	}
	_ = body.Close() // all was said
	return reply, nil
}

// fromElsewhere sends what there is of an attempt that is over, or only looked
// at, and whose own node does not have it, or cannot be asked.
func (f *follower) fromElsewhere(ctx context.Context, t *labmesh.Task, st standing, why error) error {
	found, whole, err := f.fromCopies(ctx, true)
	if err != nil || whole {
		return err
	}
	if known, err := f.fromOutputs(ctx); known || err != nil {
		return err
	}
	if known, err := f.fromResult(t); known || err != nil {
		return err
	}
	swept := labmesh.ReasonOf(why) == labmesh.NotFound
	switch {
	case found && st.over:
		return f.note("attempt %d was lost with worker %s; up to here its output is from a copy on another node, and the last of it may be missing", f.at.Attempt, st.worker)
	case found:
		return f.note("worker %s cannot be reached now; up to here this is from a copy on another node", st.worker)
	case swept && !f.req.Follow && !f.sent:
		return labmesh.Refuse(labmesh.NotFound, "the output of attempt %d of %s is not kept any more on worker %s, nor is a copy of it anywhere", f.at.Attempt, f.req.Task, st.worker)
	case swept:
		return f.note("the output of attempt %d is not kept any more on worker %s, nor is a copy of it anywhere", f.at.Attempt, st.worker)
	case !f.req.Follow && !f.sent:
		return labmesh.Refuse(labmesh.Unavailable, "the output of attempt %d of %s is on worker %s, which cannot be reached now, and no other node has a copy: ask again when the worker is back", f.at.Attempt, f.req.Task, st.worker)
	case f.at.Offset > 0:
		return f.note("the output of attempt %d breaks off here: worker %s cannot be reached, and no other node has a copy", f.at.Attempt, st.worker)
	}
	return f.note("what attempt %d printed, if anything, is on worker %s, which cannot be reached, and no other node has a copy", f.at.Attempt, st.worker)
}

// fromOutputs sends the output that was kept with the files an attempt left, if
// it was.
func (f *follower) fromOutputs(ctx context.Context) (known bool, err error) {
	_, file, err := f.s.OpenArtifact(ctx, f.req.Task, f.at.Attempt, ownDir+"/"+f.req.Stream)
	if err != nil {
		return false, ctx.Err() // it is not to be had
	}
	defer file.Close()
	r, buf := bufio.NewReader(file), make([]byte, api.LogFrameBytesMax)
	at := api.LogPosition{Attempt: f.at.Attempt}
	for {
		if at.Offset == output.HeadBytesMax { // here the middle is left out
			text, _ := r.Peek(leftOutMost)
			n, size := labmesh.ParseLeftOut(string(text))
			_, _ = r.Discard(size) // it was peeked at
			at.Offset += n
		}
		most := int64(len(buf))
		if at.Offset < output.HeadBytesMax {
			most = min(most, output.HeadBytesMax-at.Offset)
		}
		n, err := r.Read(buf[:most])
		if err := f.deliver(api.LogFrame{Kind: api.LogData, At: at, Data: buf[:n]}); err != nil {
			return true, err
		}
		at.Offset += int64(n)
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, nil //nolint:nilerr // it broke off; there may be more elsewhere
		}
	}
}

// leftOutMost is more than a mark for what is left out takes.
const leftOutMost = 80

// fromResult sends what a task's result holds of its output: all of it, if it
// is short, else its beginning and end.
func (f *follower) fromResult(t *labmesh.Task) (known bool, err error) {
	if f.at.Attempt != t.Attempt || !t.Phase.Final() {
		return false, nil
	}
	var r struct {
		Stdout          *string `json:"stdout"`
		Stderr          *string `json:"stderr"`
		StdoutTruncated bool    `json:"stdout_truncated"`
		StderrTruncated bool    `json:"stderr_truncated"`
	}
	if json.Unmarshal(t.Result, &r) != nil {
		return false, nil
	}
	text, cut := r.Stdout, r.StdoutTruncated
	if f.req.Stream == string(output.Stderr) {
		text, cut = r.Stderr, r.StderrTruncated
	}
	if text == nil || f.at.Offset > 0 && cut {
		return false, nil
	}
	if err := f.deliver(api.LogFrame{Kind: api.LogData, At: api.LogPosition{Attempt: f.at.Attempt}, Data: []byte(*text)}); err != nil {
		return true, err
	}
	if cut {
		return true, f.note("this is what the task's result holds; its worker cannot be reached")
	}
	return true, nil
}
