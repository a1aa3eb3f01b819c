package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/content"
	"labmesh/exec"
	"labmesh/node/httpapi"
)

// Limits on answering with files.
const (
	submitFetchTime = 20 * time.Second // for a bundle that a submit names and this node lacks
	openFetchTime   = 9 * time.Minute  // for outputs that are asked for and are elsewhere
	searchTime      = 5 * time.Second  // until a node is found that has either
)

var _ httpapi.Files = (*service)(nil)

// MissingChunks are those of hashes that this node does not hold.
func (s *service) MissingChunks(_ context.Context, hashes []string) ([]string, error) {
	wanted := make([]content.Hash, len(hashes))
	for i, h := range hashes {
		var err error
		if wanted[i], err = content.ParseID(h); err != nil {
			return nil, err
		}
	}
	var out []string
	for _, h := range s.n.files.store.Missing(wanted) {
		out = append(out, h.String())
	}
	return out, nil
}

// PutChunk keeps a chunk of a bundle to come.
func (s *service) PutChunk(ctx context.Context, data []byte) error {
	return storeFull(s.n.files.store.Put(ctx, content.Sum(data), data))
}

// storeFull says that a disk is full in a way that a client can act on.
func storeFull(err error) error {
	if err != nil && exec.DiskFull(err) {
		return labmesh.Refuse(labmesh.Exhausted, "the disk of this node is full: make room there, or upload through another node")
	}
	return err
}

// PutBundle checks a manifest whose chunks are all here, and keeps it.
func (s *service) PutBundle(ctx context.Context, manifest []byte) (api.Bundle, error) {
	m, err := content.DecodeManifest(manifest)
	if err != nil {
		return api.Bundle{}, err
	}
	if err := bundleLimits.Check(m); err != nil {
		return api.Bundle{}, err
	}
	hashes := make([]content.Hash, len(m.Chunks))
	for i, c := range m.Chunks {
		hashes[i] = c.Hash
	}
	if n := len(s.n.files.store.Missing(hashes)); n > 0 {
		return api.Bundle{}, labmesh.Refuse(labmesh.Conflict, "%d of its %d chunks are not here: send those that POST /api/bundles/missing names", n, len(m.Chunks))
	}
	s.n.files.need(m.ID())
	id, err := s.n.files.store.PutManifest(ctx, m)
	if err != nil {
		return api.Bundle{}, storeFull(err)
	}
	if _, err := s.n.files.store.List(ctx, id); err != nil { // which checks every path and link
		return api.Bundle{}, err
	}
	s.n.files.spreadLater(id)
	return api.Bundle{ID: id, Files: m.Files, Bytes: m.Bytes}, nil
}

// needBundles sees to it that this node has the bundles of specs: from it
// workers can fetch them.
func (s *service) needBundles(ctx context.Context, specs []labmesh.Spec) error {
	seen := map[string]bool{}
	for i := range specs {
		id := specs[i].Bundle
		if id == "" || seen[id] {
			continue
		}
		seen[id] = true
		if s.n.files.store.Complete(id) {
			s.n.files.need(id)
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, submitFetchTime)
		err := s.n.files.have(bounded, id, searchTime)
		cancel()
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.n.cfg.Logger.DebugContext(ctx, "the bundle of a submit was not found", "bundle", id, "err", err)
		field := "bundle"
		if len(specs) > 1 {
			field = fmt.Sprintf("tasks[%d].bundle", i)
		}
		return labmesh.RefuseField(field, "%s: no node that can be reached has %s: upload it again (labmesh run --bundle DIR)", field, id)
	}
	return nil
}

// spreadBundles has the bundles of specs brought to a second node.
func (s *service) spreadBundles(specs []labmesh.Spec) {
	seen := map[string]bool{}
	for i := range specs {
		if id := specs[i].Bundle; id != "" && !seen[id] {
			seen[id] = true
			s.n.files.spreadLater(id)
		}
	}
}

// outputs are those of an attempt, or for 0 of the newest that left any.
func (s *service) outputs(ctx context.Context, id labmesh.TaskID, attempt int) (labmesh.Outputs, int, error) {
	t, err := s.Task(ctx, id)
	if err != nil {
		return labmesh.Outputs{}, 0, err
	}
	var found *labmesh.Outputs
	number, known := 0, attempt == 0
	for i := range t.History {
		a := &t.History[i]
		known = known || a.Number == attempt
		if a.Outputs != nil && (attempt == 0 || a.Number == attempt) {
			found, number = a.Outputs, a.Number
		}
	}
	if t.Outputs != nil && (attempt == 0 || attempt == t.Attempt) {
		found, number = t.Outputs, t.Attempt
	}
	switch {
	case found != nil:
		return *found, number, nil
	case !known && attempt != t.Attempt:
		return labmesh.Outputs{}, 0, labmesh.Refuse(labmesh.NotFound, "task %s has no attempt %d", id, attempt)
	}
	return labmesh.Outputs{}, attempt, nil
}

// Artifacts lists the files that an attempt left.
func (s *service) Artifacts(ctx context.Context, id labmesh.TaskID, attempt int) (api.Artifacts, error) {
	o, number, err := s.outputs(ctx, id, attempt)
	list := api.Artifacts{Task: id, Attempt: number, Tree: o.Tree, Bytes: o.Bytes}
	if err != nil || o.Tree == "" {
		return list, err
	}
	if err := s.haveOutputs(ctx, id, o.Tree, s.n.files.haveList); err != nil {
		return list, err
	}
	files, err := s.n.files.store.List(ctx, o.Tree)
	for i := range files {
		list.Files = append(list.Files, artifact(&files[i]))
	}
	return list, err
}

// OpenArtifact reads a file that an attempt left.
func (s *service) OpenArtifact(ctx context.Context, id labmesh.TaskID, attempt int, path string) (api.Artifact, io.ReadCloser, error) {
	o, number, err := s.outputs(ctx, id, attempt)
	if err != nil {
		return api.Artifact{}, nil, err
	}
	if o.Tree == "" {
		return api.Artifact{}, nil, labmesh.Refuse(labmesh.NotFound, "task %s left no files yet", id)
	}
	haveFile := func(ctx context.Context, tree string, search time.Duration) error {
		return s.n.files.haveFile(ctx, tree, path, search)
	}
	if err := s.haveOutputs(ctx, id, o.Tree, haveFile); err != nil {
		return api.Artifact{}, nil, err
	}
	r, f, err := s.n.files.store.OpenFile(ctx, o.Tree, path)
	if labmesh.ReasonOf(err) == labmesh.NotFound {
		err = labmesh.Refuse(labmesh.NotFound, "attempt %d of %s left no %q: labmesh artifacts %s lists what it left", number, id, path, id)
	}
	if err != nil {
		return api.Artifact{}, nil, err
	}
	return artifact(&f), r, nil
}

// haveOutputs fetches what is wanted of outputs that are not on this node.
func (s *service) haveOutputs(ctx context.Context, id labmesh.TaskID, tree string, have func(context.Context, string, time.Duration) error) error {
	bounded, cancel := context.WithTimeout(ctx, openFetchTime)
	defer cancel()
	err := have(bounded, tree, searchTime)
	if err == nil || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	s.n.cfg.Logger.InfoContext(ctx, "outputs not fetched", "task", id, "tree", tree, "err", err)
	return labmesh.Refuse(labmesh.NotFound, "no node that can be reached has the files that %s left: the one that has them is away, or they had to make room for others", id)
}

func artifact(f *content.File) api.Artifact {
	return api.Artifact{Path: f.Path, Bytes: f.Size, Executable: f.Kind == content.Executable, Link: f.Target, Directory: f.Kind == content.EmptyDir}
}
