package report

import (
	"encoding/csv"
	"io"
	"strconv"
	"time"
)

// csvHead is a line for each point. The columns time, commit, branch and the
// figures are as Apache Otava reads them.
var csvHead = []string{"time", "series", "model", "precision", "batch", "engine", "device", "worker", "commit", "branch", "task_id", "runs", "p50_ms", "throughput"}

// WriteCSV writes the points of all series. Otava wants one series a file.
func (t *Trends) WriteCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	if err := out.Write(csvHead); err != nil {
		return err
	}
	number := func(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }
	for i := range t.Series {
		s := &t.Series[i]
		for _, p := range s.Points {
			throughput := ""
			if p.Throughput != nil {
				throughput = number(*p.Throughput)
			}
			line := []string{
				p.Time.UTC().Format(time.RFC3339), s.Variant.Series, s.Model, s.Precision, strconv.Itoa(s.Batch), s.Engine,
				deviceName(s.Device, s.DeviceName), string(s.Worker), p.Commit, p.Labels["branch"], string(p.Task), strconv.Itoa(p.Runs),
				number(p.MedianMS), throughput,
			}
			if err := out.Write(line); err != nil {
				return err
			}
		}
	}
	out.Flush()
	return out.Error()
}
