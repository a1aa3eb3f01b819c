package node

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/exec/output"
)

// Limits of output between nodes.
const (
	logsAtOnce  = 1024                  // outputs read from one node at the same time
	logsPause   = 10 * time.Millisecond // before more of an output that comes in small pieces
	logsAnswer  = 3 * time.Second       // for a node to say that it has an output
	logsDelayed = 30 * time.Second      // for whoever reads to take one piece
)

// logsRequest asks a node for one stream of the output of an attempt.
type logsRequest struct {
	Task    labmesh.TaskID `json:"task_id"`
	Attempt int            `json:"attempt"`
	Stream  output.Stream  `json:"stream"`
	Offset  int64          `json:"offset,omitempty"`
	Follow  bool           `json:"follow,omitempty"`
	Copy    bool           `json:"copy,omitempty"` // the copy kept for another node, and not what ran here
	Look    bool           `json:"look,omitempty"` // only the reply, no output
}

// logsReply goes before the output, which comes in frames.
type logsReply struct {
	Refused *labmesh.Error `json:"refused,omitempty"`
	Whole   bool           `json:"whole,omitempty"` // when it ends that is all there ever will be
	Size    int64          `json:"size,omitempty"`  // of a copy: how far it goes
}

// serveLogs gives members the output of what ran here, and of what is copied here.
func (n *Node) serveLogs(ctx context.Context) error {
	return serveStreamsUpTo(ctx, n.host.Streams(logsProtocol), logsAtOnce, func(ctx context.Context, c net.Conn, req logsRequest) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		r, reply, err := n.localLogs(ctx, req)
		if err != nil {
			return answerHead(c, logsReply{Refused: refusal(err)})
		}
		defer r.Close()
		if err := answerHead(c, reply); err != nil || req.Look {
			return err
		}
		_ = c.SetReadDeadline(time.Time{})
		gone := make(chan struct{})
		go func() { // whoever asked says nothing more; it may hang up
			defer close(gone)
			_, _ = c.Read(make([]byte, 1))
			cancel()
		}()
		err = sendPieces(ctx, r, req, func(f api.LogFrame) error {
			_ = c.SetWriteDeadline(time.Now().Add(logsDelayed))
			_, err := c.Write(f.AppendTo(nil))
			return err
		})
		c.Close()
		<-gone
		return err
	})
}

// localLogs opens an output that is on this node.
func (n *Node) localLogs(ctx context.Context, req logsRequest) (*output.Reader, logsReply, error) {
	if req.Copy {
		o, c, err := n.copies.keeper.Find(req.Task, req.Attempt)
		if err != nil {
			return nil, logsReply{}, err
		}
		return o.Open(ctx, output.Query{Stream: req.Stream, Offset: req.Offset}), logsReply{Whole: c.Ended, Size: o.Size(req.Stream)}, nil
	}
	l := n.labour.Load()
	if l == nil {
		return nil, logsReply{}, labmesh.Refuse(labmesh.NotFound, "this node takes no work")
	}
	runs := l.worker.Runs(req.Task, req.Attempt)
	r, err := l.worker.Logs(ctx, req.Task, req.Attempt, output.Query{Stream: req.Stream, Offset: req.Offset, Follow: req.Follow})
	return r, logsReply{Whole: runs && req.Follow}, err
}

// sendPieces sends what r reads, in frames, and then that it was all.
func sendPieces(ctx context.Context, r *output.Reader, req logsRequest, send func(api.LogFrame) error) error {
	buf := make([]byte, api.LogFrameBytesMax)
	at := api.LogPosition{Attempt: req.Attempt, Offset: req.Offset}
	for {
		p, err := r.Next(buf)
		at.Offset = p.Offset
		switch {
		case errors.Is(err, io.EOF):
			return send(api.LogFrame{Kind: api.LogEnd, At: at})
		case err != nil:
			return err
		case p.Gap > 0:
			err = send(api.LogFrame{Kind: api.LogGap, At: at, Missing: p.Gap})
		default:
			err = send(api.LogFrame{Kind: api.LogData, At: at, Data: p.Data})
		}
		if err != nil {
			return err
		}
		if req.Follow && len(p.Data) < len(buf)/2 { // many small pieces cost more than a few
			select {
			case <-time.After(logsPause):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// errCut says that an output broke off before its end.
var errCut = errors.New("the output broke off")

// errHole stops an output that is not wanted past a hole.
var errHole = errors.New("a hole in the output")

// readLogs reads an output that a node has. It returns nil at its end; an error
// of the kind [labmesh.Error] when the node does not have it or cannot be
// reached, errCut when it broke off, and what send said otherwise.
func (n *Node) readLogs(ctx context.Context, at labmesh.NodeID, req logsRequest, send func(api.LogFrame) error) (logsReply, error) {
	if at == n.host.ID() {
		r, reply, err := n.localLogs(ctx, req)
		if err != nil {
			return reply, err
		}
		defer r.Close()
		return reply, sendPieces(ctx, r, req, send)
	}
	body, reply, err := n.openLogs(ctx, at, req)
	if err != nil {
		return reply, err
	}
	defer body.Close()
	for frames := api.NewLogFrames(body); ; {
		f, err := frames.Next()
		switch {
		case err != nil && ctx.Err() != nil:
			return reply, ctx.Err()
		case err != nil:
			return reply, errCut
		case f.Kind == api.LogEnd:
			return reply, nil
		}
		if err := send(f); err != nil {
			return reply, err
		}
	}
}

// openLogs asks another node for an output, for a bounded time.
func (n *Node) openLogs(ctx context.Context, at labmesh.NodeID, req logsRequest) (io.ReadCloser, logsReply, error) {
	asking, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(logsAnswer, cancel)
	body, reply, err := ask[logsReply](asking, n.host.Streams(logsProtocol), at, req)
	if err == nil && !timer.Stop() {
		_ = body.Close()
		err = context.DeadlineExceeded
	}
	if err != nil {
		cancel()
		if ctx.Err() != nil {
			return nil, reply, ctx.Err()
		}
		n.cfg.Logger.DebugContext(ctx, "output not fetched", "from", at, "err", err)
		return nil, reply, labmesh.Refuse(labmesh.Unavailable, "it is on node %s, which cannot be reached now", at)
	}
	if reply.Refused != nil {
		_ = body.Close() // all was said
		cancel()
		return nil, reply, reply.Refused
	}
	return cancelling{body, cancel}, reply, nil
}

// cancelling is a body whose context is ended with it.
type cancelling struct {
	io.ReadCloser
	cancel context.CancelFunc
}

// Close hangs up.
func (c cancelling) Close() error {
	defer c.cancel()
	return c.ReadCloser.Close()
}
