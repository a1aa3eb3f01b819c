package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"labmesh"
	"labmesh/exec/output"
	"labmesh/node/httpapi"
)

// logsRequest asks the node of a worker for the output of an attempt.
type logsRequest struct {
	Task    labmesh.TaskID `json:"task_id"`
	Attempt int            `json:"attempt"`
	Stream  output.Stream  `json:"stream,omitempty"`
	Follow  bool           `json:"follow,omitempty"`
}

// logsReply goes before the output.
type logsReply struct {
	Refused *labmesh.Error `json:"refused,omitempty"`
}

// serveLogs gives members the output of what ran here.
func (n *Node) serveLogs(ctx context.Context) error {
	return serveStreams(ctx, n.host.Streams(logsProtocol), func(ctx context.Context, c net.Conn, req logsRequest) error {
		r, err := n.localLogs(ctx, req)
		if err != nil {
			return answerHead(c, logsReply{Refused: refusal(err)})
		}
		defer r.Close()
		if err := answerHead(c, logsReply{}); err != nil {
			return err
		}
		_, err = io.Copy(c, r)
		return err
	})
}

func (n *Node) localLogs(ctx context.Context, req logsRequest) (io.ReadCloser, error) {
	l := n.labour.Load()
	if l == nil {
		return nil, labmesh.Refuse(labmesh.NotFound, "this node takes no work")
	}
	return l.worker.Logs(ctx, req.Task, req.Attempt, output.Query{Stream: req.Stream, Follow: req.Follow})
}

// openLogs reads the output of an attempt from the node that has it.
func (n *Node) openLogs(ctx context.Context, at labmesh.NodeID, req logsRequest) (io.ReadCloser, error) {
	if at == n.host.ID() {
		return n.localLogs(ctx, req)
	}
	body, reply, err := ask[logsReply](ctx, n.host.Streams(logsProtocol), at, req)
	if err != nil {
		n.cfg.Logger.DebugContext(ctx, "output not fetched", "from", at, "err", err)
		return nil, labmesh.Refuse(labmesh.Unavailable, "it is on node %s, which cannot be reached now", at)
	}
	if reply.Refused != nil {
		return nil, errors.Join(reply.Refused, body.Close())
	}
	return body, nil
}

// Logs is the output of an attempt. When it is followed it begins as soon as
// there is an attempt, and goes on with the next attempt when one is lost.
func (s *service) Logs(ctx context.Context, r httpapi.LogRequest) (io.ReadCloser, error) {
	if _, err := s.Task(ctx, r.Task); err != nil {
		return nil, err
	}
	if !r.Follow {
		number, worker, _, err := s.attempt(ctx, r.Task, r.Attempt)
		if err != nil {
			return nil, err
		}
		if number == 0 {
			return io.NopCloser(eof{}), nil // it has not been started: it has said nothing
		}
		return s.n.openLogs(ctx, worker, logsRequest{Task: r.Task, Attempt: number, Stream: output.Stream(r.Stream)})
	}
	ctx, cancel := context.WithCancel(ctx)
	reader, writer := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		writer.CloseWithError(s.followLogs(ctx, r, writer))
	}()
	return &followed{PipeReader: reader, cancel: cancel, done: done}, nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// followed is output that is being followed; Close ends that and waits for it.
type followed struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
}

// Close stops following.
func (f *followed) Close() error {
	f.cancel()
	err := f.PipeReader.Close()
	<-f.done
	return err
}

// followLogs copies the output of each attempt in turn until the task has ended.
func (s *service) followLogs(ctx context.Context, r httpapi.LogRequest, w io.Writer) error {
	for shown := 0; ctx.Err() == nil; {
		changed := s.n.replica.Changed()
		number, worker, over, err := s.attempt(ctx, r.Task, r.Attempt)
		if err != nil {
			return err
		}
		if number > shown {
			if shown > 0 {
				fmt.Fprintf(w, "\n[attempt %d has ended; attempt %d begins]\n", shown, number)
			}
			shown = number
			if err := s.copyLogs(ctx, worker, logsRequest{r.Task, number, output.Stream(r.Stream), true}, w); err != nil {
				return err
			}
			if r.Attempt > 0 {
				return nil
			}
			continue
		}
		if over {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

func (s *service) copyLogs(ctx context.Context, at labmesh.NodeID, req logsRequest, w io.Writer) error {
	body, err := s.n.openLogs(ctx, at, req)
	if err != nil {
		fmt.Fprintf(w, "\n[the output of attempt %d cannot be read: %v]\n", req.Attempt, err)
		return nil
	}
	defer body.Close()
	if _, err := io.Copy(w, body); err != nil && ctx.Err() == nil {
		fmt.Fprintf(w, "\n[the output of attempt %d breaks off here: its node cannot be reached]\n", req.Attempt)
	}
	return ctx.Err()
}

// attempt is the wanted attempt of a task, or its newest for 0: its number (0
// while there is none), the node of its worker, and whether the task has ended.
func (s *service) attempt(ctx context.Context, id labmesh.TaskID, want int) (number int, node labmesh.NodeID, over bool, err error) {
	t, err := s.Task(ctx, id)
	if err != nil {
		return 0, "", false, err
	}
	number, worker := t.Attempt, t.Worker
	if t.Phase == labmesh.Assigned && want == 0 {
		// Its worker may not have heard of it yet. What there is to read is the attempt before.
		number--
		for _, a := range t.History {
			worker = a.Worker
		}
	}
	if want > 0 {
		number, worker = 0, ""
		if want == t.Attempt {
			number, worker = want, t.Worker
		}
		for _, a := range t.History {
			if a.Number == want {
				number, worker = want, a.Worker
			}
		}
		if number == 0 {
			return 0, "", false, labmesh.Refuse(labmesh.NotFound, "task %s has no attempt %d", id, want)
		}
	}
	if w, ok := s.n.replica.View().Worker(worker); ok {
		node = w.Node
	}
	return number, node, t.Phase.Final(), nil
}
