package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
	"labmesh/each"
)

// expandAll makes the tasks that those of a file stand for, in their order.
func (a *app) expandAll(ctx context.Context, c *client.Client, tasks []fileTask) ([]labmesh.Spec, error) {
	var specs []labmesh.Spec
	var workers []labmesh.Worker
	for i, t := range tasks {
		if t.forEach == "" {
			specs = append(specs, t.Spec)
			continue
		}
		if workers == nil {
			var err error
			if workers, err = workersOf(ctx, c); err != nil {
				return nil, err
			}
		}
		made, left, err := a.expand(t.Spec, t.forEach, workers)
		if err != nil {
			var refused *labmesh.Error
			if errors.As(err, &refused) {
				return nil, fmt.Errorf("task %d: %w; nothing was submitted", i+1, err)
			}
			return nil, err
		}
		a.noteLeft(left)
		for _, m := range made {
			specs = append(specs, m.Spec)
		}
	}
	return specs, nil
}

// expand makes one task for each of what by names. That there is none is an error.
func (a *app) expand(s labmesh.Spec, by string, workers []labmesh.Worker) ([]each.Task, []each.Left, error) {
	made, left, refused := each.Expand(s, by, workers)
	switch {
	case refused != nil:
		return nil, nil, refused
	case len(made) == 0:
		a.noteLeft(left)
		return nil, nil, exitError{exitFailed, fmt.Sprintf("for each %s: no worker of the mesh fits; nothing was submitted", by)}
	}
	for i := range made {
		local := made[i].Spec
		if !api.ValidContentID(local.Bundle) {
			local.Bundle = "" // a directory here, which is to be uploaded
		}
		if err := api.ValidateSpec(&local); err != nil {
			return nil, nil, err
		}
	}
	return made, left, nil
}

// noteLeft names what was left out, and why.
func (a *app) noteLeft(left []each.Left) {
	for _, l := range left {
		a.note("labmesh: without %s: %s", printable(strings.TrimSpace(orElse(l.Hostname, string(l.Worker))+" "+l.Device)), printable(l.Reason))
	}
}

// workersOf are the workers of the mesh in full.
func workersOf(ctx context.Context, c *client.Client) ([]labmesh.Worker, error) {
	list, err := c.Workers(ctx)
	if err != nil {
		return nil, err
	}
	workers := make([]labmesh.Worker, len(list))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(fetchersMax)
	for i, w := range list {
		g.Go(func() error {
			full, err := c.Worker(ctx, w.ID)
			workers[i] = workerOf(full)
			return err
		})
	}
	return workers, g.Wait()
}

// workerOf is a worker as the mesh knows it, from what the API shows of it.
func workerOf(w api.Worker) labmesh.Worker {
	status := labmesh.WorkerStatus(w.Status)
	if w.Status == api.WorkerBusy {
		status = labmesh.WorkerActive
	}
	return labmesh.Worker{
		ID: w.ID, Node: w.Node, Hostname: w.Hostname, Slots: w.Slots, Kinds: w.Kinds, Capabilities: w.Full, Tags: w.Tags,
		Status: status, Reason: string(w.Reason),
	}
}
