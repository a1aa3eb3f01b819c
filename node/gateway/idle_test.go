package gateway_test

import (
	"context"
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// BenchmarkIdleWorkers is what a thousand light workers cost that only send heartbeats. Pipes stand for
// connections, and the workers' own ends are counted in: the node's share is less.
func BenchmarkIdleWorkers(b *testing.B) {
	const workers = 1000
	for b.Loop() {
		d := open(b, newFakeMesh(), "a")
		before := inUse()
		conns := make([]*websocket.Conn, workers)
		for i := range conns {
			c := d.dial(b, "/ws")
			conns[i] = c
			for _, m := range []string{
				fmt.Sprintf(`{"type":"auth","auth_type":"api_key","api_key":"good","worker_id":"w%d"}`, i),
				fmt.Sprintf(`{"type":"register","worker_id":"w%d","capabilities":{"hardware":["cpu"]}}`, i), `{"type":"heartbeat"}`,
			} {
				if err := c.Write(context.Background(), websocket.MessageText, []byte(m)); err != nil {
					b.Fatal(err)
				}
				if _, _, err := c.Read(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		}
		time.Sleep(time.Second)
		b.ReportMetric(float64(inUse()-before)/1e6, "MB")
		var from, to syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &from)
		time.Sleep(5 * time.Second)
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &to)
		b.ReportMetric(float64(to.Utime.Nano()-from.Utime.Nano()+to.Stime.Nano()-from.Stime.Nano())/5e9*100, "%cpu")
		for _, c := range conns {
			_ = c.CloseNow()
		}
		d.stop()
	}
}

func inUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
