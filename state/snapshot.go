package state

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"labmesh"
)

// snapshotVersion stamps the form of snapshots. A snapshot is a stream of JSON
// values: a header, then one record for each thing kept.
const snapshotVersion = 1

type header struct {
	Version  int            `json:"labmesh_snapshot"`
	Mesh     labmesh.MeshID `json:"mesh_id"`
	Level    int            `json:"level,omitempty"`
	Index    uint64         `json:"index"`
	Now      time.Time      `json:"now"`
	Seq      uint64         `json:"seq"`
	Attempts int64          `json:"attempts"`
	Ends     uint64         `json:"ends"`
	Kept     uint64         `json:"kept"`
	Counts   Counts         `json:"counts"` // of final phases; the rest follows from the tasks
	SealKey  string         `json:"seal_key,omitempty"`
}

type record struct {
	Worker   *labmesh.Worker   `json:"worker,omitempty"`
	Tempo    time.Duration     `json:"tempo,omitempty"`  // of Worker
	Recent   []outcome         `json:"recent,omitempty"` // likewise
	Member   *labmesh.Member   `json:"member,omitempty"`
	Invite   *labmesh.Invite   `json:"invite,omitempty"`
	Key      *labmesh.Key      `json:"key,omitempty"`
	Secret   *labmesh.Secret   `json:"secret,omitempty"`
	TokenKey *labmesh.TokenKey `json:"token_key,omitempty"`
	Ended    *ending           `json:"ended,omitempty"` // in order of ending, the last being header.Ends-1
	Task     *labmesh.Task     `json:"task,omitempty"`
	End      bool              `json:"end,omitempty"` // the last record: what lacks it was cut off
}

// Encode writes a snapshot of v, from which [Decode] makes an equal state. Equal
// states are written as the same bytes, on every replica.
func (v View) Encode(w io.Writer) error {
	buf := bufio.NewWriterSize(w, 1<<16)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false) // raw JSON comes back as long as it was: its weight decides what is kept
	h := header{snapshotVersion, v.mesh, v.level, v.index, v.now, v.seq, v.attempts, v.ends, v.kept, Counts{}, v.sealKey}
	for p, n := range v.counts {
		if p.Final() {
			h.Counts[p] = n
		}
	}
	err := enc.Encode(h)
	write := func(r record) bool {
		if err == nil {
			err = enc.Encode(r)
		}
		return err == nil
	}
	v.workers.Scan(func(id labmesh.WorkerID, w *labmesh.Worker) bool {
		tempo, _ := v.tempo.Get(id)
		recent, _ := v.outcomes.Get(id)
		return write(record{Worker: w, Tempo: tempo, Recent: recent})
	})
	v.members.Scan(func(_ labmesh.NodeID, m *labmesh.Member) bool { return write(record{Member: m}) })
	v.invites.Scan(func(_ string, i *labmesh.Invite) bool { return write(record{Invite: i}) })
	v.apiKeys.Scan(func(_ string, k *labmesh.Key) bool { return write(record{Key: k}) })
	v.secrets.Scan(func(_ string, s *labmesh.Secret) bool { return write(record{Secret: s}) })
	v.tokenKeys.Scan(func(_ string, k *labmesh.TokenKey) bool { return write(record{TokenKey: k}) })
	v.ended.Scan(func(_ uint64, e ending) bool { return write(record{Ended: &e}) })
	v.tasks.Scan(func(_ uint64, t *labmesh.Task) bool { return write(record{Task: t}) })
	write(record{End: true})
	if err == nil {
		err = buf.Flush()
	}
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// Decode reads a snapshot.
func Decode(r io.Reader) (*Cluster, error) {
	dec := json.NewDecoder(bufio.NewReaderSize(r, 1<<16))
	var h header
	if err := dec.Decode(&h); err != nil {
		return nil, fmt.Errorf("read snapshot: header: %w", err)
	}
	if h.Version != snapshotVersion {
		return nil, fmt.Errorf("read snapshot: version %d, this build knows %d: upgrade this node", h.Version, snapshotVersion)
	}
	if h.Level > labmesh.Feature {
		return nil, fmt.Errorf("read snapshot: it is of a mesh at feature level %d, this build knows %d: upgrade this node", h.Level, labmesh.Feature)
	}
	c := New()
	v := &c.v
	v.level, v.sealKey = h.Level, h.SealKey
	v.mesh, v.index, v.now, v.seq, v.attempts, v.ends, v.kept = h.Mesh, h.Index, h.Now, h.Seq, h.Attempts, h.Ends, h.Kept
	for p, n := range h.Counts {
		v.counts[p] = n
	}
	x := &change{v: v, at: v.now, last: &c.last}
	var ended []ending
	for n := 0; ; n++ {
		var rec record
		if err := dec.Decode(&rec); err != nil {
			return nil, fmt.Errorf("read snapshot: record %d: %w", n, err)
		}
		if rec.End {
			break
		}
		if rec.Ended != nil {
			ended = append(ended, *rec.Ended)
			continue
		}
		x.restore(rec)
	}
	if uint64(len(ended)) > v.ends || v.kept > v.ends {
		return nil, fmt.Errorf("read snapshot: %d endings of %d, kept from %d: it contradicts itself", len(ended), v.ends, v.kept)
	}
	for i, e := range ended {
		v.ended.Set(v.ends-uint64(len(ended)-i), e)
		v.ids.Set(e.ID, e.Seq)
		if e.Key != "" {
			v.keys.Set(taskKey(e.Project, e.Key), e.ID)
		}
	}
	v.workers.Scan(func(id labmesh.WorkerID, _ *labmesh.Worker) bool { x.reckon(id); return true })
	return c, nil
}

// restore puts one record back, with all the indexes that follow from it.
func (x *change) restore(r record) {
	switch {
	case r.Worker != nil:
		x.v.workers.Set(r.Worker.ID, r.Worker)
		if r.Tempo > 0 {
			x.v.tempo.Set(r.Worker.ID, r.Tempo)
		}
		if len(r.Recent) > 0 {
			x.v.outcomes.Set(r.Worker.ID, r.Recent)
		}
	case r.Member != nil:
		x.v.members.Set(r.Member.Node, r.Member)
	case r.Invite != nil:
		x.v.invites.Set(r.Invite.ID, r.Invite)
	case r.Key != nil:
		x.v.apiKeys.Set(r.Key.ID, r.Key)
	case r.Secret != nil:
		x.v.secrets.Set(r.Secret.Name, r.Secret)
	case r.TokenKey != nil:
		x.v.tokenKeys.Set(r.TokenKey.ID, r.TokenKey)
	case r.Task != nil:
		t := r.Task
		x.v.tasks.Set(t.Seq, t)
		x.v.ids.Set(t.ID, t.Seq)
		if k := t.Spec.IdempotencyKey; k != "" {
			x.v.keys.Set(taskKey(t.Project, k), t.ID)
		}
		if t.Phase.Final() {
			x.v.keptSize += weight(t)
			return
		}
		x.v.counts[t.Phase]++
		x.index(t)
	}
}
