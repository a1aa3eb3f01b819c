package httpapi

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"labmesh"
)

// statusWait bounds what a scrape waits for the status of the mesh.
const statusWait = 2 * time.Second

// gauge is one figure of the mesh.
type gauge struct {
	desc *prometheus.Desc
	of   func(*Status) float64
}

// statuser knows how the mesh stands.
type statuser interface {
	Status(ctx context.Context) Status
}

// meshCollector shows the mesh as [Mesh.Status] has it at each scrape.
type meshCollector struct {
	mesh    statuser
	gauges  []gauge
	workers *prometheus.Desc
	tasks   *prometheus.Desc
	build   *prometheus.Desc
	version string
}

func newMeshCollector(mesh statuser, version string) *meshCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("labmesh_"+name, help, labels, nil)
	}
	return &meshCollector{
		mesh: mesh, version: version,
		workers: desc("workers", "Workers by what they do; idle ones are active too.", "state"),
		tasks:   desc("tasks", "Tasks by status.", "status"),
		build:   desc("build_info", "The version that runs; always 1.", "version"),
		gauges: []gauge{
			{desc("is_leader", "1 on the node that leads."), func(s *Status) float64 { return truth(s.Role == "leader") }},
			{desc("has_leader", "1 when this node knows who leads."), func(s *Status) float64 { return truth(s.Leader != "") }},
			{desc("term", "The term of the leader."), func(s *Status) float64 { return float64(s.Term) }},
			{desc("voters", "Nodes that vote."), func(s *Status) float64 { return float64(len(s.Voters)) }},
			{desc("replicas", "Nodes that hold a copy."), func(s *Status) float64 { return float64(len(s.Replicas)) }},
			{desc("leaves", "Nodes that hold none."), func(s *Status) float64 { return float64(len(s.Leaves)) }},
			{desc("quorum", "Voters that must be there for a decision."), func(s *Status) float64 { return float64(s.Quorum) }},
			{desc("applied_index", "Log index that this node has applied."), func(s *Status) float64 { return float64(s.Applied) }},
			{desc("ledger_index", "Log index that the ledger has reached."), func(s *Status) float64 { return float64(s.Ledger) }},
			{desc("stale_seconds", "Since the leader was last heard of."), func(s *Status) float64 { return s.StaleSeconds }},
			{desc("uptime_seconds", "Since the node started."), func(s *Status) float64 { return s.Uptime.Seconds() }},
			{desc("warnings", "Warnings in the status."), func(s *Status) float64 { return float64(len(s.Warnings)) }},
		},
	}
}

// Describe names the figures.
func (m *meshCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, g := range m.gauges {
		ch <- g.desc
	}
	ch <- m.workers
	ch <- m.tasks
	ch <- m.build
}

// Collect reads the figures.
func (m *meshCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), statusWait)
	defer cancel()
	s := m.mesh.Status(ctx)
	show := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, g := range m.gauges {
		show(g.desc, g.of(&s))
	}
	show(m.workers, float64(s.Workers.Active), "active")
	show(m.workers, float64(s.Workers.Idle), "idle")
	show(m.workers, float64(s.Workers.Held), "held")
	show(m.workers, float64(s.Workers.Offline), "offline")
	for _, p := range labmesh.Phases() {
		show(m.tasks, float64(s.Tasks[p]), string(p))
	}
	show(m.build, 1, m.version)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
