package httpapi

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics counts requests, and shows them with the mesh and the process.
type metrics struct {
	requests *prometheus.CounterVec
	latency  *prometheus.HistogramVec
	streams  prometheus.Gauge
	handler  http.Handler
}

// newMetrics makes metrics with a registry of their own.
func newMetrics(mesh statuser, version string, more []prometheus.Collector) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "labmesh_http_requests_total", Help: "HTTP requests answered.",
		}, []string{"route", "method", "code"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "labmesh_http_request_seconds", Help: "How long HTTP requests took; streams are left out.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 12), // 0.5 ms to 12 s
		}, []string{"route"}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "labmesh_http_streams", Help: "Event streams and logs that are open.",
		}),
	}
	reg := prometheus.NewRegistry()
	all := []prometheus.Collector{
		m.requests, m.latency, m.streams, newMeshCollector(mesh, version),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}
	for _, c := range slices.Concat(all, more) {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	m.handler = promhttp.HandlerFor(reg, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
	return m, nil
}

func (m *metrics) serve(w http.ResponseWriter, r *http.Request, _ Caller) error {
	m.handler.ServeHTTP(w, r)
	return nil
}

// count notes one request. A stream lasts as long as its reader likes, which
// says nothing of how fast the node is.
func (m *metrics) count(route, method string, status int, took time.Duration, stream bool) {
	if !slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}, method) {
		method = "other" // callers choose it, and each would be a series
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	if !stream {
		m.latency.WithLabelValues(route).Observe(took.Seconds())
	}
}
