package node

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"labmesh"
	"labmesh/content"
	"labmesh/content/pack"
	"labmesh/content/store"
	"labmesh/content/swarm"
	"labmesh/exec/artifacts"
	"labmesh/mesh"
	"labmesh/state"
)

// Limits on files.
const (
	fetchPatience = 30 * time.Second // that a worker looks for a node that has a bundle
	keepFresh     = 10 * time.Minute // that a tree stays which no task is known to need yet

)

// bundleLimits bound what a bundle may hold, outputLimits what one attempt leaves.
var (
	bundleLimits = content.Limits{Files: 100_000, Bytes: 20 << 30}
	outputLimits = content.Limits{Files: artifacts.FilesMax + 10_000, Bytes: 20 << 30}
)

// ownDir is where the files are that labmesh itself keeps with an attempt's outputs.
const ownDir = ".labmesh"

// files is this node's share of the mesh's files: the bundles that tasks start
// from and the outputs that attempts leave.
type files struct {
	store   *store.Store
	swarm   *swarm.Swarm
	members *members
	host    *mesh.Host
	logger  *slog.Logger
	calm    func(context.Context) // waits, within a bound, while something is measured here
	spread  chan string           // trees that are to be on a second node
	used    func() []string       // trees that tasks of the mesh use

	mu      sync.Mutex
	fresh   map[string]*lately // trees that came lately
	purgeAt int                // how many of them there may be until the old are sought
}

// lately is what is known of a tree that came lately.
type lately struct {
	at     time.Time // when it came, or was last asked for
	spread bool      // it is on a second node, or on its way there
}

func openFiles(cfg Config, host *mesh.Host, m *members, used func() []string, calm func(context.Context)) (*files, error) {
	f := &files{calm: calm, used: used, members: m, host: host, logger: cfg.Logger, spread: make(chan string, spreadQueue), fresh: map[string]*lately{}}
	dir := filepath.Join(cfg.DataDir, blobsDir)
	var err error
	if f.store, err = store.Open(dir, store.Config{BytesMax: cfg.BlobCache, InUse: f.inUse}); err != nil {
		return nil, err
	}
	f.swarm = swarm.New(f.store, host.Streams(contentProtocol), f.peers, cfg.Logger)
	return f, nil
}

// peers are the members that trees may be had from: those that are heard of, or
// all while none is.
func (f *files) peers() []labmesh.NodeID {
	all := slices.DeleteFunc(f.members.nodes(), func(n labmesh.NodeID) bool { return n == f.host.ID() })
	heard := make([]labmesh.NodeID, 0, len(all))
	for _, n := range all {
		if f.host.Alive(n) {
			heard = append(heard, n)
		}
	}
	if len(heard) == 0 {
		return all
	}
	return heard
}

// inUse are the trees that must not make room for others: the bundles of tasks
// that have not ended, the outputs of all tasks that are remembered, and what
// came lately.
func (f *files) inUse() []string {
	ids := map[string]bool{}
	for _, id := range f.used() {
		ids[id] = true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.purge()
	for id := range f.fresh {
		ids[id] = true
	}
	out := make([]string, 0, len(ids))
	for id := range ids {
		out = append(out, id)
	}
	return out
}

// treesOf are the trees that tasks in a view use.
func treesOf(view state.View) []string {
	ids := map[string]bool{}
	for t := range view.Tasks(0) {
		if t.Spec.Bundle != "" && !t.Phase.Final() {
			ids[t.Spec.Bundle] = true
		}
		for i := range t.History {
			if o := t.History[i].Outputs; o != nil {
				ids[o.Tree] = true
			}
		}
		if t.Outputs != nil {
			ids[t.Outputs.Tree] = true
		}
	}
	return slices.Collect(maps.Keys(ids))
}

// need keeps a tree from making room for others for a while.
func (f *files) need(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(id)
}

// note remembers a tree. The caller holds mu.
func (f *files) note(id string) *lately {
	l := f.fresh[id]
	if l == nil {
		if len(f.fresh) >= f.purgeAt {
			f.purge()
			f.purgeAt = 2*len(f.fresh) + 1000
		}
		l = &lately{}
		f.fresh[id] = l
	}
	l.at = time.Now()
	return l
}

// purge forgets what came long ago. The caller holds mu.
func (f *files) purge() {
	for id, l := range f.fresh {
		if time.Since(l.at) > keepFresh {
			delete(f.fresh, id)
		}
	}
}

// errNowhere says that no node was found that has a tree.
var errNowhere = labmesh.Refuse(labmesh.NotFound, "no node that can be reached has it")

// have sees to it that a tree is here. It gives up when no node is found that
// has it within the time for the search; what has begun to come may take longer.
func (f *files) have(ctx context.Context, id string, search time.Duration) error {
	return f.bring(ctx, id, search, func(ctx context.Context) error { return f.swarm.Fetch(ctx, id) })
}

// haveList sees to it that a tree can be listed here.
func (f *files) haveList(ctx context.Context, id string, search time.Duration) error {
	return f.bring(ctx, id, search, func(ctx context.Context) error {
		return f.swarm.FetchSome(ctx, id, func(m *content.Manifest) []content.Chunk { return m.Part(m.Bytes, m.Index) })
	})
}

// haveFile sees to it that a file of a tree can be read here, if there is one at
// the path.
func (f *files) haveFile(ctx context.Context, id, path string, search time.Duration) error {
	if err := f.haveList(ctx, id, search); err != nil || f.store.Complete(id) {
		return err
	}
	list, err := f.store.List(ctx, id)
	if err != nil {
		return err
	}
	file, _ := content.Find(list, path)
	return f.bring(ctx, id, search, func(ctx context.Context) error {
		return f.swarm.FetchSome(ctx, id, func(m *content.Manifest) []content.Chunk {
			return slices.Concat(m.Part(m.Bytes, m.Index), m.Part(file.Offset, file.Size))
		})
	})
}

// bring fetches what is wanted of a tree that is not here whole.
func (f *files) bring(ctx context.Context, id string, search time.Duration, fetch func(context.Context) error) error {
	h, err := content.ParseID(id)
	if err != nil {
		return err
	}
	f.need(id)
	if f.store.Complete(id) {
		return nil
	}
	if len(f.peers()) == 0 {
		return errNowhere
	}
	within, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	defer time.AfterFunc(search, func() {
		if !f.store.Has(h) {
			giveUp(errNowhere)
		}
	}).Stop()
	err = fetch(within)
	if cause := context.Cause(within); err != nil && cause != nil {
		return cause
	}
	return err
}

// Unpack is [exec.Files].
func (f *files) Unpack(ctx context.Context, id, dir string) error {
	for tries := 0; ; tries++ {
		if err := f.have(ctx, id, fetchPatience); err != nil {
			return f.tooSmall(id, err)
		}
		err := f.store.Unpack(ctx, id, dir, bundleLimits)
		if labmesh.ReasonOf(err) != labmesh.NotFound || tries > 0 {
			return err
		}
		// A chunk was damaged on this disk. It is fetched again.
		if err := emptyDir(dir); err != nil {
			return err
		}
	}
}

// tooSmall tells a bundle that is too large for this node from one that is too
// large for any.
func (f *files) tooSmall(id string, err error) error {
	if labmesh.ReasonOf(err) != labmesh.TooLarge {
		return err
	}
	m, merr := f.store.Manifest(id)
	if merr != nil || bundleLimits.Check(m) != nil {
		return err
	}
	return labmesh.Refuse(labmesh.Exhausted, "%v: give this node a larger --blob-cache", err)
}

// emptyDir removes what is in dir.
func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// Keep is [exec.Files].
func (f *files) Keep(ctx context.Context, dir string, patterns []string, extra string) (*labmesh.Outputs, error) {
	rules, err := artifacts.Parse(patterns)
	if err != nil {
		return nil, err
	}
	paths, err := rules.Match(ctx, os.DirFS(dir))
	if err != nil {
		return nil, err
	}
	paths = slices.DeleteFunc(paths, reserved)
	if len(paths) == 0 { // without a path all of it would be packed
		if dir, err = os.MkdirTemp(filepath.Dir(dir), "none-"); err != nil {
			return nil, err
		}
		defer os.Remove(dir)
	}
	id, m, err := f.store.Pack(ctx, dir, pack.Options{
		Paths: paths, NoIgnore: true, Also: map[string]string{ownDir: extra},
		Limits: outputLimits,
		Refused: func(path string, why error) {
			f.logger.InfoContext(ctx, "a file that an attempt left is not kept", "dir", dir, "path", path, "why", why)
		},
	})
	if err != nil {
		return nil, err
	}
	if m.Files == 0 {
		return nil, nil
	}
	f.need(id)
	f.spreadLater(id)
	return &labmesh.Outputs{Tree: id, Files: m.Files, Bytes: m.Bytes}, nil
}

// reserved says of a path in a work directory that it cannot be among the
// outputs: the place is labmesh's own, or it is git's.
func reserved(name string) bool {
	return name == ownDir || strings.HasPrefix(name, ownDir+"/") || slices.Contains(strings.Split(path.Dir(name), "/"), ".git") || path.Base(name) == ".git"
}

// run gives peers what they ask for, and has them fetch what is to be spread.
// At the end it takes a moment for what has not been spread yet.
func (f *files) run(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	ctx, end := context.WithCancel(ctx)
	defer end()
	served := make(chan error, 1)
	go func() {
		err := f.swarm.Run(work)
		end() // where it ended by itself, all of this does
		served <- err
	}()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(spreadLast, cancel) })()
	var spreaders sync.WaitGroup
	for range spreadersMax {
		spreaders.Go(func() { f.spreadLoop(ctx, work) })
	}
	spreaders.Wait()
	cancel()
	return <-served
}
