package run

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/suite"
)

// fleet knows which workers there are for a suite.
type fleet struct {
	r      *runner
	fits   map[labmesh.WorkerID]fit // what is known of each
	speeds map[labmesh.WorkerID]float64
	usable []labmesh.WorkerID
	why    string // why there is none
	asked  time.Time
	asking bool
	news   chan census
}

// fit is whether a worker can run the suite.
type fit struct {
	ok   bool
	host string
	why  string
	// gauged is how fast the machine was when it was measured; 0 when it was not.
	gauged float64
}

// census is an answer of the mesh about its workers.
type census struct {
	workers []api.WorkerSummary
	full    map[labmesh.WorkerID]api.Worker // of those that were not known
	err     error
}

// look asks for the workers and waits for the answer.
func (f *fleet) look() {
	f.news = make(chan census, 1)
	f.ask(f.unknown)
	f.take(<-f.news)
}

// refresh asks for the workers again when it is time to.
func (f *fleet) refresh() {
	if !f.asking && time.Since(f.asked) >= workersEvery {
		f.ask(f.unknown)
	}
}

// forget has a worker looked at anew, of which an event tells.
func (f *fleet) forget(ev api.Event) {
	f.asked = time.Time{}
	if ev.Worker != nil {
		if known, ok := f.fits[ev.Worker.ID]; ok {
			known.why = "changed"
			f.fits[ev.Worker.ID] = known
		}
	}
}

// unknown lists those of workers that are to be asked about.
func (f *fleet) unknown() map[labmesh.WorkerID]bool {
	known := make(map[labmesh.WorkerID]bool, len(f.fits))
	for id, fit := range f.fits {
		known[id] = fit.why != "changed"
	}
	return known
}

func (f *fleet) ask(snapshot func() map[labmesh.WorkerID]bool) {
	f.asking, f.asked = true, time.Now()
	known := snapshot()
	r, news := f.r, f.news
	r.jobs.Go(func() {
		c := census{full: map[labmesh.WorkerID]api.Worker{}}
		c.workers, c.err = r.Mesh.Workers(r.work)
		for _, w := range c.workers {
			if c.err == nil && !known[w.ID] && takes(w) {
				full, err := r.Mesh.Worker(r.work, w.ID)
				if err == nil {
					c.full[w.ID] = full
				}
			}
		}
		news <- c
	})
}

// takes reports whether a worker is there and takes work, now or when it has done what it has.
func takes(w api.WorkerSummary) bool { return w.Status == "active" || w.Status == "busy" }

// take tells the queue of the workers.
func (f *fleet) take(c census) {
	f.asking = false
	if c.err != nil {
		return // it is asked again
	}
	req := f.r.spec(chunkConfig{}, "").Requirements
	for id, full := range c.full {
		w := labmesh.Worker{ID: id, Slots: full.Slots, Kinds: full.Kinds, Capabilities: full.Full, Tags: full.Tags}
		why := req.Misfits(labmesh.Test, &w)
		known := fit{ok: len(why) == 0, host: full.Hostname, why: strings.Join(why, "; ")}
		if c := full.Full.Calibration; c != nil {
			known.gauged = c.Speed
		}
		f.fits[id] = known
	}
	f.usable = f.usable[:0]
	var list []suite.Worker
	var reasons []string
	for _, w := range c.workers {
		fit, known := f.fits[w.ID]
		switch {
		case !takes(w):
			reasons = append(reasons, fmt.Sprintf("%s is %s", w.Hostname, w.Status))
		case known && fit.ok:
			slots := w.Slots / max(req.Slots(w.Slots), 1)
			list = append(list, suite.Worker{ID: w.ID, Slots: slots, Speed: f.speeds[w.ID], Gauged: fit.gauged})
			f.usable = append(f.usable, w.ID)
		case known:
			reasons = append(reasons, w.Hostname+": "+fit.why)
		}
	}
	f.why = ""
	if len(list) == 0 {
		slices.Sort(reasons)
		f.why = "no worker fits"
		if len(reasons) > 0 {
			f.why += " (" + strings.Join(slices.Compact(reasons), "; ") + ")"
		}
	}
	f.r.queue.SetWorkers(list)
}

// waits says why nothing runs.
func (f *fleet) waits() string {
	if f.why != "" {
		return f.why
	}
	return "for a worker to begin"
}
