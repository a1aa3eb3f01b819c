// Package plot draws the reports of package report: latency and throughput over
// the batch size, and series over time with their changes, as SVG or PNG.
package plot
