package duckdb

import (
	"fmt"
	"slices"
	"strings"
)

// reportView is a ready view over the ledger, for people. Inside the node it sees
// what the tables of a query show; the stock duckdb client finds it in the file.
type reportView struct {
	name string
	sql  string
}

// reportRuns is how many of the newest runs of a test case a report looks at.
const reportRuns = 50

// runsSQL has, as newest, a row for each test case and each run of a suite in which it was not
// skipped: good says that it passed in one of its tries, bad that it did not in
// one, ok how its last try ended. n counts runs back from the newest one.
func runsSQL() string {
	return fmt.Sprintf(`
	tries AS (
		SELECT framework, file, name, parameters, coalesce(suite, task_id) AS run, id, time, try, verdict, seconds,
			message, worker_id, task_id, attempt, log_ref, quarantined,
			verdict IN ('failed', 'error', 'crashed', 'timeout') AS failed
		FROM test_results WHERE verdict <> 'skipped'
	),
	runs AS (
		SELECT framework, file, name, parameters, run, max(id) AS id, max(time) AS time,
			bool_or(NOT failed) AS good, bool_or(failed) AS bad,
			NOT arg_max(failed, (try, id)) AS ok, bool_or(NOT failed AND try > 1) AS retried,
			arg_max(message, id) FILTER (failed) AS message, arg_max(verdict, id) FILTER (failed) AS bad_verdict,
			arg_max(worker_id, id) FILTER (failed) AS bad_worker, arg_max(task_id, id) FILTER (failed) AS bad_task,
			arg_max(log_ref, id) FILTER (failed) AS bad_log, bool_or(quarantined) AS quarantined
		FROM tries GROUP BY framework, file, name, parameters, run
	),
	newest AS (
		SELECT *, row_number() OVER (PARTITION BY framework, file, name, parameters ORDER BY id DESC) AS n
		FROM runs QUALIFY n <= %d
	)`, reportRuns)
}

// wilson is the lower bound of the 95 % confidence interval of k in n.
func wilson(k, n string) string {
	return fmt.Sprintf("greatest(0, ((%[1]s + 1.92073) / %[2]s - 1.959964 * sqrt(%[1]s * (%[2]s - %[1]s) / %[2]s + 0.960365) / %[2]s) / (1 + 3.841459 / %[2]s))", k, n)
}

// reports are the views, in the order of their names.
func reports() []reportView { return slices.Concat(benchReports(), testReports()) }

func testReports() []reportView {
	return []reportView{
		{"failing_tests", `WITH ` + runsSQL() + `,
	since AS (
		SELECT *, min(n) FILTER (ok) OVER (PARTITION BY framework, file, name, parameters) AS last_ok FROM newest
	)
	SELECT framework, file, name, parameters,
		arg_min(bad_verdict, n) AS verdict, count(*) AS runs, min(time) AS since, max(time) AS last,
		arg_min(message, n) AS message, arg_min(bad_worker, n) AS worker_id, arg_min(bad_task, n) AS task_id,
		arg_min(bad_log, n) AS log_ref, arg_min(quarantined, n) AS quarantined
	FROM since WHERE NOT ok AND (last_ok IS NULL OR n < last_ok)
	GROUP BY framework, file, name, parameters
	ORDER BY last DESC, file, name, parameters`},

		{"flaky_tests", `WITH ` + runsSQL() + `,
	judged AS (
		SELECT *, bad AND (good OR
			lag(ok) OVER (PARTITION BY framework, file, name, parameters ORDER BY n) AND
			lead(ok) OVER (PARTITION BY framework, file, name, parameters ORDER BY n)) AS flaky
		FROM newest
	),
	counted AS (
		SELECT framework, file, name, parameters, count(*) AS runs,
			count(*) FILTER (flaky OR retried) AS flaky_runs, count(*) FILTER (NOT ok) AS failed_runs,
			max(time) FILTER (flaky OR retried) AS last_flaky, arg_min(message, n) FILTER (flaky) AS message,
			arg_min(quarantined, n) AS quarantined
		FROM judged GROUP BY framework, file, name, parameters
	)
	SELECT framework, file, name, parameters, runs, flaky_runs, failed_runs, flaky_runs / runs AS rate,
		` + wilson("flaky_runs", "runs") + ` AS rate_at_least, last_flaky, message, quarantined
	FROM counted WHERE flaky_runs > 0
	ORDER BY rate_at_least DESC, file, name, parameters`},

		{"slowest_tests", fmt.Sprintf(`WITH newest AS (
		SELECT * FROM test_results WHERE verdict <> 'skipped'
		QUALIFY row_number() OVER (PARTITION BY framework, file, name, parameters ORDER BY id DESC) <= %d
	)
	SELECT framework, file, name, parameters, count(*) AS runs, median(seconds) AS median_seconds,
		quantile_cont(seconds, 0.95) AS p95_seconds, max(seconds) AS max_seconds, sum(seconds) AS total_seconds,
		arg_max(worker_id, seconds) AS slowest_worker
	FROM newest GROUP BY framework, file, name, parameters
	ORDER BY median_seconds DESC, file, name, parameters`, reportRuns)},

		{"tests_by_platform", fmt.Sprintf(`WITH placed AS (
		SELECT r.*, coalesce(w.capabilities->>'$.platform', 'unknown') AS platform,
			verdict IN ('failed', 'error', 'crashed', 'timeout') AS failed
		FROM test_results r LEFT JOIN worker_nodes w ON w.worker_id = r.worker_id
		WHERE verdict <> 'skipped'
		QUALIFY row_number() OVER (PARTITION BY framework, file, name, parameters, platform ORDER BY id DESC) <= %d
	),
	counted AS (
		SELECT framework, file, name, parameters, platform, count(*) AS runs, count(*) FILTER (NOT failed) AS passed,
			count(*) FILTER (failed) AS failed, avg(seconds) AS mean_seconds, max(time) AS last,
			arg_max(message, id) FILTER (failed) AS message
		FROM placed GROUP BY framework, file, name, parameters, platform
	)
	SELECT framework, file, name, parameters, platform, runs, passed, failed, failed / runs AS failed_rate, mean_seconds, last,
		failed > 0 AND sum(failed) OVER cases = failed AND count(*) OVER cases > 1 AS fails_only_here, message
	FROM counted WINDOW cases AS (PARTITION BY framework, file, name, parameters)
	ORDER BY file, name, parameters, platform`, reportRuns)},
	}
}

// mentioned are the reports whose names are in a statement.
func mentioned(sql string) []reportView {
	sql = strings.ToLower(sql)
	return slices.DeleteFunc(reports(), func(r reportView) bool { return !strings.Contains(sql, r.name) })
}
