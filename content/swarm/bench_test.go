package swarm_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	benchBytes    = 100_000_000
	benchFetchers = 5
	benchLine     = "200mbit"
)

// compare measures the tree that the first node packs: fetched by the others
// together, then again, and then copied by them from the first, as bare bytes
// over streams of the same transport. A tree of 3 kB, fetched by one, is the
// small one.
func compare(b *testing.B, nodes []*process) {
	b.Helper()
	introduce(b, nodes)
	src, others := nodes[0], nodes[1:]
	const total = benchBytes * benchFetchers
	var fetched, again, copied, sent, wasted, fetchCPU, copyCPU float64
	n := 0.0
	for b.Loop() {
		id := src.do(b, order{Op: "pack", Bytes: benchBytes, Seed: byte(n)}).ID
		before := src.do(b, order{}).Traffic.SentBytes
		busy := spent(b, nodes)
		took, _ := together(b, others, order{Op: "fetch", ID: id})
		fetchCPU += spent(b, nodes) - busy
		after := src.do(b, order{}).Traffic.SentBytes
		fetched += took.Seconds()
		sent += float64(after-before) / benchBytes
		twice, said := together(b, others, order{Op: "fetch", ID: id})
		again += twice.Seconds()
		if end := src.do(b, order{}).Traffic.SentBytes; end != after {
			b.Errorf("a second fetch moved %d bytes", end-after)
		}
		for _, a := range said {
			wasted += float64(a.Traffic.WastedBytes)
		}
		busy = spent(b, nodes)
		plain, _ := together(b, others, order{Op: "copy", From: src.Node, Bytes: benchBytes})
		copied += plain.Seconds()
		copyCPU += spent(b, nodes) - busy
		n++
	}
	var small []time.Duration
	for i := range 9 {
		id := src.do(b, order{Op: "pack", Bytes: 3000, Seed: byte(200 + i)}).ID
		took, _ := together(b, others[:1], order{Op: "fetch", ID: id})
		small = append(small, took)
	}
	slices.Sort(small)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(small[len(small)/2].Seconds()*1000, "small-ms")
	b.ReportMetric(fetched/n, "swarm-s")
	b.ReportMetric(copied/n, "copies-s")
	b.ReportMetric(again/n*1000, "again-ms")
	b.ReportMetric(total*n/fetched/1e6, "swarm-MB/s")
	b.ReportMetric(total*n/copied/1e6, "copies-MB/s")
	b.ReportMetric(copied/fetched, "times-as-fast")
	b.ReportMetric(fetchCPU/n, "swarm-cpu-s")
	b.ReportMetric(copyCPU/n, "copies-cpu-s")
	b.ReportMetric(sent/n, "source-sent")
	b.ReportMetric(wasted/n/total*100, "%twice")
}

// BenchmarkLoopback is 100 MB from one process to five over bare loopback, where
// only the processors limit it: the ratio says what checking, storing and
// choosing cost beside bare copies that are thrown away.
func BenchmarkLoopback(b *testing.B) {
	var nodes []*process
	for range benchFetchers + 1 {
		nodes = append(nodes, startNode(b, "/ip4/127.0.0.1/tcp/0"))
	}
	compare(b, nodes)
}

// BenchmarkShapedLines is the same in network namespaces, each on a line of 200
// Mbit/s both ways, where the lines limit it: five copies share the line of the
// source, and the swarm uses all lines.
func BenchmarkShapedLines(b *testing.B) {
	wraps := namespaces(b, benchFetchers+1)
	var nodes []*process
	for i, wrap := range wraps {
		nodes = append(nodes, startNode(b, fmt.Sprintf("/ip4/%s/tcp/4080", lineIP(i)), wrap...))
	}
	compare(b, nodes)
}

func lineIP(i int) string { return fmt.Sprintf("10.213.77.%d", i+1) }

// namespaces makes network namespaces that are joined by a bridge, each with a
// line of its own, and returns how to run a program in each. It needs root, and
// ip and tc.
func namespaces(b *testing.B, n int) (wraps [][]string) {
	b.Helper()
	if os.Getuid() != 0 {
		b.Skip("network namespaces need root")
	}
	for _, tool := range []string{"ip", "tc"} {
		if _, err := exec.LookPath(tool); err != nil {
			b.Skipf("shaped lines need %s, of Debian's iproute2", tool)
		}
	}
	run := func(line string) error {
		args := strings.Fields(line)
		out, err := exec.CommandContext(b.Context(), args[0], args[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, out)
		}
		return nil
	}
	name := func(i int) string { return fmt.Sprintf("lmsw%d-%d", os.Getpid(), i) }
	hub := name(n)
	for i := range n + 1 {
		if err := run("ip netns add " + name(i)); err != nil {
			b.Skip(err)
		}
		b.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name(i)).Run() })
	}
	shape := " root tbf rate " + benchLine + " burst 128k latency 100ms"
	lines := []string{"ip -n " + hub + " link add br0 type bridge", "ip -n " + hub + " link set br0 up"}
	for i := range n {
		port := fmt.Sprint("p", i)
		lines = append(lines,
			"ip -n "+name(i)+" link set lo up",
			"ip -n "+hub+" link add "+port+" type veth peer name eth0 netns "+name(i),
			"ip -n "+hub+" link set "+port+" master br0 up",
			"ip -n "+name(i)+" addr add "+lineIP(i)+"/24 dev eth0",
			"ip -n "+name(i)+" link set eth0 up",
			"tc -n "+name(i)+" qdisc add dev eth0"+shape, // what it sends
			"tc -n "+hub+" qdisc add dev "+port+shape,    // what it gets
		)
		wraps = append(wraps, []string{"ip", "netns", "exec", name(i)})
	}
	for _, line := range lines {
		if err := run(line); err != nil {
			b.Skip(err)
		}
	}
	return wraps
}
