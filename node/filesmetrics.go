package node

import "github.com/prometheus/client_golang/prometheus"

// collectors show what the node's share of the mesh's files costs.
func (f *files) collectors() []prometheus.Collector {
	counter := func(name, help string, value func() int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	gauge := func(name, help string, value func() int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	return []prometheus.Collector{
		counter("labmesh_content_sent_bytes_total", "Bytes of bundles and outputs given to other nodes.", func() int64 { return f.swarm.Traffic().SentBytes }),
		counter("labmesh_content_received_bytes_total", "Bytes of bundles and outputs had from other nodes.", func() int64 { return f.swarm.Traffic().ReceivedBytes }),
		counter("labmesh_content_wasted_bytes_total", "Bytes that came from other nodes a second time, or wrong.", func() int64 { return f.swarm.Traffic().WastedBytes }),
		gauge("labmesh_content_bytes", "Bytes of bundles and outputs on this disk.", func() int64 { n, _ := f.store.Usage(); return n }),
		gauge("labmesh_content_limit_bytes", "How many of them there may be.", func() int64 { _, n := f.store.Usage(); return n }),
	}
}
