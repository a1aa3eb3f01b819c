package store

// Format is the version of the ledger's tables. A ledger with a newer one is
// refused. One with an older one is brought up to date when it is opened: it
// gets the tables and the columns that it lacks, so a column is added at the end
// of its table and none is ever changed. Format 2 added test_results and the
// columns artifacts, format 3 benchmark_results, format 4 audit_log and the
// column project.
const Format = 4

// Type is what a column holds.
type Type int

// The types of columns. In Go a row holds nil for NULL, and else a string,
// json.RawMessage, int64, float64, bool, or time.Time in UTC and whole microseconds.
const (
	Text Type = iota + 1
	JSON
	Integer
	BigInt
	Float
	Double
	Timestamp
	Boolean
)

// SQL is the type's name in DuckDB.
func (t Type) SQL() string {
	switch t {
	case Text:
		return "VARCHAR"
	case JSON:
		return "JSON"
	case Integer:
		return "INTEGER"
	case BigInt:
		return "BIGINT"
	case Float:
		return "FLOAT"
	case Double:
		return "DOUBLE"
	case Timestamp:
		return "TIMESTAMP"
	case Boolean:
		return "BOOLEAN"
	}
	return ""
}

// Column is one column of a table.
type Column struct {
	Name string
	Type Type
}

// Table is one table of the ledger. Its first column names what a row is about.
type Table struct {
	Name    string
	Columns []Column
	// Replaced says that there is one row for each value of the first column,
	// the one with the highest log_index. All other tables only grow.
	Replaced bool
}

// Index is the place of a column in the table's rows, or -1.
func (t *Table) Index(column string) int {
	for i := range t.Columns {
		if t.Columns[i].Name == column {
			return i
		}
	}
	return -1
}

// LogIndex is the column that every table has: the log index of the entry that
// a row comes from.
const LogIndex = "log_index"

// TasksTable holds finished tasks.
var TasksTable = Table{Name: "distributed_tasks", Columns: []Column{
	{"task_id", Text}, {"type", Text}, {"priority", Integer}, {"status", Text},
	{"create_time", Timestamp}, {"start_time", Timestamp}, {"end_time", Timestamp},
	{"worker_id", Text}, {"attempts", Integer}, {"config", JSON}, {"requirements", JSON},
	{LogIndex, BigInt}, {"seq", BigInt}, {"name", Text}, {"labels", JSON},
	{"result", JSON}, {"error", Text}, {"cause", Text}, {"submitted_by", Text},
	{"idempotency_key", Text}, {"max_attempts", Integer}, {"assign_time", Timestamp},
	{"not_before", Timestamp}, {"failed_attempts", Integer}, {"lost_attempts", Integer},
	{"spec", JSON},      // what of the spec has no column of its own
	{"artifacts", JSON}, // what the accepted attempt left
	{"project", Text},
}}

// AuditTable holds what was done to the mesh, and by whom.
var AuditTable = Table{Name: "audit_log", Columns: []Column{
	{LogIndex, BigInt}, {"n", Integer}, {"time", Timestamp}, {"actor", Text}, {"name", Text}, {"role", Text},
	{"remote", Text}, {"node_id", Text}, {"action", Text}, {"target", Text}, {"outcome", Text}, {"detail", Text}, {"count", Integer},
	{"place", Integer}, // among the records of its event, from 0
}}

// AttemptsTable holds attempts that ended.
var AttemptsTable = Table{Name: "task_execution_history", Columns: []Column{
	{"id", BigInt}, {"task_id", Text}, {"worker_id", Text}, {"attempt", Integer}, {"status", Text},
	{"start_time", Timestamp}, {"end_time", Timestamp}, {"execution_time_seconds", Float},
	{"error_message", Text}, {"hardware_metrics", JSON},
	{LogIndex, BigInt}, {"cause", Text}, {"seconds", Double}, {"artifacts", JSON},
}}

// WorkersTable holds workers as they were when the mesh last decided about them.
var WorkersTable = Table{Name: "worker_nodes", Replaced: true, Columns: []Column{
	{"worker_id", Text}, {"hostname", Text}, {"registration_time", Timestamp},
	{"last_heartbeat", Timestamp}, {"status", Text}, {"capabilities", JSON},
	{"hardware_metrics", JSON}, {"tags", JSON},
	{LogIndex, BigInt}, {"node_id", Text}, {"slots", Integer}, {"kinds", JSON},
	{"reason", Text}, {"changed_time", Timestamp},
}}

// EventsTable holds every event.
var EventsTable = Table{Name: "events", Columns: []Column{
	{LogIndex, BigInt}, {"n", Integer}, {"time", Timestamp}, {"type", Text},
	{"task_id", Text}, {"attempt", Integer}, {"worker_id", Text}, {"node_id", Text},
	{"actor", Text}, {"detail", Text},
}}

// TestsTable holds how test cases ended, each run of one a row.
var TestsTable = Table{Name: "test_results", Columns: []Column{
	{LogIndex, BigInt}, {"id", BigInt}, {"suite", Text}, {"task_id", Text}, {"attempt", Integer},
	{"try", Integer}, {"worker_id", Text}, {"framework", Text}, {"file", Text}, {"name", Text},
	{"parameters", Text}, {"verdict", Text}, {"seconds", Double}, {"message", Text},
	{"log_ref", Text}, {"quarantined", Boolean}, {"time", Timestamp},
	{"place", Integer}, // among the cases of its attempt, from 0
	{"n", Integer},     // of the event that told of it
}}

// BenchTable holds what benchmarks measured: a row for each run of the runner and
// each batch size. Times are in milliseconds; those without a prefix are what the
// host saw, those with device_ what the device's own clock says.
var BenchTable = Table{Name: "benchmark_results", Columns: []Column{
	{LogIndex, BigInt}, {"id", BigInt}, {"task_id", Text}, {"attempt", Integer}, {"worker_id", Text},
	{"run_id", Text}, {"repeat", Integer}, {"arm", Text}, {"started_at", Timestamp}, {"finished_at", Timestamp},
	{"series_key", Text}, {"compare_key", Text}, {"labels", JSON}, // of the task

	{"model", Text}, {"model_source", Text}, {"weights", Text}, {"seed", BigInt}, {"params", BigInt},
	{"flops_per_item", Double}, {"input_shape", JSON}, {"batch", Integer},
	{"precision_requested", Text}, {"precision_effective", Text}, {"precision_cast", Text},
	{"iterations_requested", Integer}, {"warmup_iterations", Integer}, {"threads", Integer},
	{"compile", Boolean}, {"tf32", Boolean}, {"attn_impl", Text}, {"device_count", Integer},
	{"engine", Text}, {"engine_version", Text}, {"engine_why", Text}, {"kernel", Text},
	{"device_class", Text}, {"device_name", Text}, {"device_uuid", Text}, {"driver_major", Text}, {"protocol", Integer},

	{"status", Text}, {"reason", Text}, {"iterations", Integer},
	{"p50_ms", Double}, {"p90_ms", Double}, {"p95_ms", Double}, {"p99_ms", Double},
	{"min_ms", Double}, {"max_ms", Double}, {"mean_ms", Double}, {"sd_ms", Double}, {"mad_ms", Double},
	{"cv", Double}, {"ci_low_ms", Double}, {"ci_high_ms", Double}, // of the median, 95 %
	{"device_p50_ms", Double}, {"device_p90_ms", Double}, {"device_p95_ms", Double}, {"device_p99_ms", Double},
	{"device_min_ms", Double}, {"device_max_ms", Double}, {"device_mean_ms", Double}, {"device_sd_ms", Double}, {"device_mad_ms", Double},
	{"device_cv", Double}, {"device_ci_low_ms", Double}, {"device_ci_high_ms", Double},
	{"first_ms", Double}, {"load_s", Double}, {"throughput", Double}, {"gflops", Double}, {"samples_ref", Text},
	{"stability", Text}, {"window_spread_pct", Double}, {"lag1_autocorr", Double}, {"drift_pct", Double},
	{"finite", Boolean}, {"checksum", Text},
	{"cpu_ms_per_iter", Double}, {"cpu_util", Double}, {"host_peak_bytes", BigInt}, {"device_peak_bytes", BigInt},
	{"device_reserved_bytes", BigInt}, {"device_total_bytes", BigInt}, {"energy_j", Double}, {"energy_source", Text}, {"power_avg_w", Double},
	{"env", JSON}, {"flags", JSON}, {"doubts", JSON}, {"comparable", Boolean},
	{"place", Integer}, // among the rows of its attempt, from 0
	{"n", Integer},     // of the event that told of it
}}

// Tables are the tables that the log fills, in the order in which rows are exported.
func Tables() []*Table {
	return []*Table{&TasksTable, &AttemptsTable, &WorkersTable, &EventsTable, &TestsTable, &BenchTable, &AuditTable}
}
