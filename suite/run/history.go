package run

import (
	"fmt"
	"strings"

	"labmesh"
	"labmesh/api"
	"labmesh/suite"
)

// What of the past counts.
const (
	historyRuns  = 7  // the newest of a case
	historyDays  = 90 // old
	speedLeast   = 0.05
	speedMost    = 20
	speedCases   = 5 // that a worker must have run for its speed to be known
	filesInQuery = 200
)

// recent is the runs that predictions rest on.
const recent = `WITH recent AS (
  SELECT file, name, coalesce(parameters, '') AS parameters, worker_id, seconds,
    row_number() OVER (PARTITION BY file, name, parameters ORDER BY log_index DESC) AS n
  FROM test_results
  WHERE verdict IN ('passed', 'failed', 'xfailed', 'xpassed') AND seconds >= 0 AND framework = %s AND time > now()::TIMESTAMP - INTERVAL %d DAY%s
  QUALIFY n <= %d),
mid AS (SELECT file, name, parameters, median(seconds) AS m FROM recent GROUP BY ALL)
`

// recall looks up in the ledger what cases took before, and how fast the workers
// were. Without that a suite runs too, only less well planned.
func (r *runner) recall(cases []suite.Case) {
	r.fleet.speeds = map[labmesh.WorkerID]float64{}
	if len(cases) == 0 {
		return
	}
	with := fmt.Sprintf(recent, quote(string(r.Framework)), historyDays, inFiles(cases), historyRuns)
	reply, err := r.Mesh.Query(r.work, api.QueryRequest{SQL: with + "SELECT file, name, parameters, m FROM mid", MaxRows: api.QueryRowsMax})
	if err != nil {
		r.Note("labmesh: no history of the tests could be had: %v", err)
		return
	}
	type key struct{ file, name, params string }
	took := make(map[key]float64, len(reply.Rows))
	for _, row := range reply.Rows {
		if len(row) == 4 {
			took[key{asText(row[0]), asText(row[1]), asText(row[2])}] = asNumber(row[3])
		}
	}
	for i, c := range cases {
		if s, ok := took[key{c.File, c.Name, c.Params}]; ok {
			cases[i].Seconds = max(s, 1e-4)
			r.history++
		}
	}
	reply, err = r.Mesh.Query(r.work, api.QueryRequest{SQL: with + fmt.Sprintf(`SELECT worker_id, sum(m) / sum(seconds) AS speed
FROM recent JOIN mid USING (file, name, parameters) WHERE seconds >= 0.005 GROUP BY worker_id HAVING count(*) >= %d`, speedCases)})
	if err != nil {
		return // the run will show how fast they are
	}
	for _, row := range reply.Rows {
		if len(row) == 2 {
			if speed := asNumber(row[1]); speed > 0 {
				r.fleet.speeds[labmesh.WorkerID(asText(row[0]))] = min(max(speed, speedLeast), speedMost)
			}
		}
	}
}

// inFiles narrows a query to the files of cases, when they are few.
func inFiles(cases []suite.Case) string {
	seen := map[string]bool{}
	var names []string
	for _, c := range cases {
		if !seen[c.File] {
			seen[c.File] = true
			if names = append(names, quote(c.File)); len(names) > filesInQuery {
				return ""
			}
		}
	}
	return " AND file IN (" + strings.Join(names, ", ") + ")"
}

func asText(v any) string {
	s, _ := v.(string)
	return s
}
