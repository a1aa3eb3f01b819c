package duckdb

// summarySQL has, as summary, a row for each task of a benchmark, worker, arm and
// batch size: medians over its runs. Runs that are not comparable count only
// where there are no others.
const summarySQL = `
	summary AS (
		SELECT max(id) AS id, task_id, worker_id, arm, batch, arg_max(model, id) AS model,
			arg_max(precision_requested, id) AS precision_requested, arg_max(precision_effective, id) AS precision_effective,
			arg_max(engine, id) AS engine, arg_max(engine_version, id) AS engine_version, arg_max(kernel, id) AS kernel,
			arg_max(device_class, id) AS device_class, arg_max(device_name, id) AS device_name, arg_max(device_uuid, id) AS device_uuid,
			arg_max(threads, id) AS threads, min(started_at) AS started_at, max(finished_at) AS finished_at,
			count(DISTINCT run_id) AS runs, count(*) FILTER (comparable) AS comparable_runs,
			coalesce(arg_max(status, id) FILTER (p50_ms IS NOT NULL), arg_max(status, id)) AS status,
			arg_max(reason, id) FILTER (p50_ms IS NULL) AS reason,
			coalesce(median(p50_ms) FILTER (comparable), median(p50_ms)) AS p50_ms,
			coalesce(min(p50_ms) FILTER (comparable), min(p50_ms)) AS p50_least_ms,
			coalesce(max(p50_ms) FILTER (comparable), max(p50_ms)) AS p50_most_ms,
			coalesce(median(p90_ms) FILTER (comparable), median(p90_ms)) AS p90_ms,
			coalesce(median(device_p50_ms) FILTER (comparable), median(device_p50_ms)) AS device_p50_ms,
			coalesce(median(throughput) FILTER (comparable), median(throughput)) AS throughput,
			coalesce(median(gflops) FILTER (comparable), median(gflops)) AS gflops,
			max(host_peak_bytes) AS host_peak_bytes, max(device_peak_bytes) AS device_peak_bytes,
			list_sort(list_distinct(flatten(list(flags::VARCHAR[])))) AS flags, arg_max(labels, id) AS labels,
			coalesce(arg_max(series_key, id) FILTER (p50_ms IS NOT NULL), arg_max(series_key, id)) AS series_key,
			coalesce(arg_max(compare_key, id) FILTER (p50_ms IS NOT NULL), arg_max(compare_key, id)) AS compare_key,
			max(log_index) AS log_index
		FROM benchmark_results GROUP BY task_id, worker_id, arm, batch
	)`

// benchReports are the views over what benchmarks measured.
func benchReports() []reportView {
	return []reportView{
		{"benchmark_latest", `WITH ` + summarySQL + `
	SELECT * FROM summary WHERE comparable_runs > 0
	QUALIFY row_number() OVER (PARTITION BY series_key ORDER BY id DESC) = 1
	ORDER BY model, precision_requested, batch, device_class, device_name, engine, series_key`},

		{"benchmark_runs", `WITH series AS (
		SELECT series_key, median(p50_ms) AS series_p50_ms, count(*) AS series_runs
		FROM benchmark_results WHERE comparable AND p50_ms IS NOT NULL GROUP BY series_key
	)
	SELECT r.id, r.started_at, r.task_id, r.attempt, r.run_id, r.repeat, r.arm, r.worker_id, w.hostname,
		r.model, r.batch, r.precision_requested, r.precision_effective, r.engine, r.engine_version,
		r.device_class, r.device_name, r.device_uuid, r.threads, r.status, r.iterations, r.p50_ms, r.p90_ms, r.p99_ms, r.min_ms,
		r.throughput, r.cpu_ms_per_iter, r.comparable, r.flags,
		r.labels->>'$.git_sha' AS git_sha, r.labels->>'$.branch' AS branch, r.labels,
		s.series_p50_ms, s.series_runs, r.p50_ms / s.series_p50_ms AS vs_series, r.series_key, r.compare_key, r.log_index
	FROM benchmark_results r LEFT JOIN series s ON s.series_key = r.series_key
		LEFT JOIN worker_nodes w ON w.worker_id = r.worker_id
	WHERE r.p50_ms IS NOT NULL
	ORDER BY r.id`},

		{"benchmark_summary", `WITH ` + summarySQL + `
	SELECT * FROM summary ORDER BY task_id, arm, batch, id`},
	}
}
