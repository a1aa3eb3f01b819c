package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"labmesh"
	"labmesh/store"
	"labmesh/store/duckdb"
)

// commitInterval is the least time between two transactions of the ledger that
// nobody waits for. A transaction costs DuckDB about 5 ms of CPU, whatever is in
// it, and nothing depends on it: the log has everything.
const commitInterval = 500 * time.Millisecond

// Limits of fetching rows from a peer.
const (
	fillEvery      = 2 * time.Second // how often peers are asked while there is a gap
	fillIdle       = time.Minute     // how often one is looked for otherwise
	fillRows       = 50_000          // rows in one request
	fillTimeout    = 60 * time.Second
	fillBytesMax   = 256 << 20 // of one answer
	requestMax     = 4 << 10   // bytes of a request between members
	servedAtOnce   = 16        // requests of one protocol served at the same time
	ledgerPatience = 5 * time.Second
)

// ledger is the ledger of this node: the file, the queue before it, and those
// who follow events.
type ledger struct {
	store.Backend
	behind   *store.Behind
	hub      *hub
	aside    string                    // where a damaged ledger was put; "" without one
	gap      atomic.Pointer[store.Gap] // what it lacked when last looked; nil for nothing
	required chan struct{}             // has one in it when rows may be missing
	logger   *slog.Logger
}

func openLedger(ctx context.Context, cfg Config) (*ledger, error) {
	l := &ledger{hub: newHub(), required: make(chan struct{}, 1), logger: cfg.Logger, Backend: cfg.Parts.Backend}
	if l.Backend == nil {
		db, aside, err := duckdb.Open(ctx, duckdb.Config{Path: cfg.DBPath, Check: cfg.LedgerCheck, Logger: cfg.Logger})
		if err != nil {
			return nil, err
		}
		if aside != "" {
			cfg.Logger.WarnContext(ctx, "the ledger was damaged; it is set aside and built anew from the log and from peers", "aside", aside)
		}
		l.Backend, l.aside = db, aside
	}
	var err error
	if l.behind, err = store.NewBehind(l.Backend, store.BehindConfig{Logger: cfg.Logger, Interval: commitInterval}); err != nil {
		return nil, errors.Join(err, l.Backend.Close())
	}
	return l, nil
}

// Append hands the events of an entry to the queue and to those who follow.
// It is [consensus.Ledger].
func (l *ledger) Append(index uint64, events []labmesh.Event) {
	if err := l.behind.Append(index, events); err != nil && !errors.Is(err, store.ErrClosed) {
		l.logger.Error("events not queued for the ledger", "index", index, "err", err)
	}
	audited := func(e labmesh.Event) bool { return e.Type == labmesh.Audited }
	if slices.ContainsFunc(events, audited) { // that is for admins
		events = slices.DeleteFunc(slices.Clone(events), audited)
	}
	l.hub.publish(events)
}

// Await waits until the ledger is written up to index.
func (l *ledger) Await(ctx context.Context, index uint64) error { return l.behind.Await(ctx, index) }

// await is Await with bounded patience: a full disk must not make reading
// impossible.
func (l *ledger) await(ctx context.Context, index uint64) {
	ctx, cancel := context.WithTimeout(ctx, ledgerPatience)
	defer cancel()
	if err := l.Await(ctx, index); err != nil && ctx.Err() == nil {
		l.logger.DebugContext(ctx, "the ledger is behind", "err", err)
	}
}

// Require notes that rows up to index have to come from a peer.
func (l *ledger) Require(index uint64) {
	if err := l.behind.Require(index); err != nil && !errors.Is(err, store.ErrClosed) {
		l.logger.Error("gap in the ledger not noted", "index", index, "err", err)
	}
	select {
	case l.required <- struct{}{}:
	default: // it will be looked at anyway
	}
}

func (l *ledger) run(ctx context.Context) error { return l.behind.Run(ctx) }

// rowsRequest asks a peer for rows of its ledger.
type rowsRequest struct {
	After uint64 `json:"after"`
	Upto  uint64 `json:"upto"`
}

// rowsReply goes before the rows.
type rowsReply struct {
	Next    uint64         `json:"next"`
	Refused *labmesh.Error `json:"refused,omitempty"`
}

// fillLedger fetches what the ledger lacks from whichever peer has it.
func (n *Node) fillLedger(ctx context.Context) error {
	for ctx.Err() == nil {
		for n.fillOnce(ctx) {
		}
		wait := fillIdle
		if n.ledger.gap.Load() != nil {
			wait = fillEvery
		}
		select {
		case <-time.After(wait):
		case <-n.ledger.required:
		case <-ctx.Done():
		}
	}
	return nil
}

// fillOnce fetches one piece, and reports whether it made progress.
func (n *Node) fillOnce(ctx context.Context) bool {
	gap, ok, err := n.ledger.Gap(ctx)
	if err != nil || ctx.Err() != nil {
		return false
	}
	if !ok {
		n.ledger.gap.Store(nil)
		return false
	}
	n.ledger.gap.Store(&gap)
	status := n.replica.Status()
	for _, peer := range append(status.Voters, status.Learners...) {
		if peer == n.host.ID() || !n.host.Alive(peer) {
			continue
		}
		next, err := n.fetchRows(ctx, peer, gap)
		if err == nil && next > gap.After {
			n.cfg.Logger.InfoContext(ctx, "ledger rows fetched", "from", peer, "after", gap.After, "upto", next, "of", gap.Upto)
			return true
		}
		if err != nil && ctx.Err() == nil {
			n.cfg.Logger.WarnContext(ctx, "ledger rows not fetched; the next peer is asked", "from", peer, "err", err)
		}
	}
	return false
}

func (n *Node) fetchRows(ctx context.Context, peer labmesh.NodeID, gap store.Gap) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, fillTimeout)
	defer cancel()
	body, head, err := ask[rowsReply](ctx, n.host.Streams(ledgerProtocol), peer, rowsRequest{gap.After, gap.Upto})
	if err != nil {
		return 0, err
	}
	defer body.Close()
	if head.Refused != nil {
		return 0, head.Refused
	}
	return head.Next, n.ledger.Import(ctx, io.LimitReader(body, fillBytesMax), head.Next)
}

// serveLedger gives rows to peers that lack them.
func (n *Node) serveLedger(ctx context.Context) error {
	return serveStreams(ctx, n.host.Streams(ledgerProtocol), func(ctx context.Context, c net.Conn, req rowsRequest) error {
		var rows bytes.Buffer
		next, err := n.ledger.Export(ctx, req.After, req.Upto, fillRows, &rows)
		if err != nil {
			return answerHead(c, rowsReply{Refused: refusal(err)})
		}
		if err := answerHead(c, rowsReply{Next: next}); err != nil {
			return err
		}
		_, err = rows.WriteTo(c)
		return err
	})
}

// refusal is err for the other side of a stream: an internal fault without its text.
func refusal(err error) *labmesh.Error {
	var e *labmesh.Error
	if errors.As(err, &e) {
		return e
	}
	return labmesh.Refuse(labmesh.Internal, "the other node met an internal fault")
}

func answerHead(w io.Writer, head any) error {
	data, err := json.Marshal(head)
	if err != nil {
		return err
	}
	if _, err := w.Write(append(data, '\n')); err != nil {
		return fmt.Errorf("answer a member: %w", err)
	}
	return nil
}
