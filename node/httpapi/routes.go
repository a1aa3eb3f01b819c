package httpapi

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/bench/report"
)

// How long requests may take that [Limits] gives no time: a large body, and a
// statement that uses all of its timeout.
const (
	batchWait = 3 * time.Minute
	queryWait = api.QueryTimeoutMax + time.Minute
	fetchWait = 10 * time.Minute // for files that are to be fetched from another node
)

// route is one thing that the API does. The mux and the OpenAPI document are
// both made from the table of them.
type route struct {
	method, path string
	may          roles // who may use it
	own          bool  // submitters see by it the tasks of their project, workers themselves
	byKey        bool  // it takes the API key itself: what lasts an hour is not to make what lasts longer
	serve        func(w http.ResponseWriter, r *http.Request, c Caller) error

	wait   time.Duration // how long it may take; 0 for [Limits].Request
	stream bool          // it ends when the caller leaves

	summary string
	params  []param
	in, out any    // values of the types of the body and of the reply
	media   string // of the reply, where it is not JSON
	drawn   bool   // the reply may also be a drawing
	inMedia string // of the body, where it is not JSON
	errors  []int  // statuses beyond those that every route has
}

// param is a query parameter or a header of a route.
type param struct {
	name, in, about string
	schema          any // a value of its type
	words           []string
}

func (a *API) routes() []route {
	return slices.Concat(a.meshRoutes(), a.workerRoutes(), a.taskRoutes(), a.reportRoutes(), a.fileRoutes(), a.selfRoutes())
}

func (a *API) meshRoutes() []route {
	return []route{
		{method: "GET", path: "/status", may: keys, serve: a.status,
			summary: "The mesh at a glance, as this node sees it; also when there is no leader", out: api.Status{}},
		{method: "GET", path: "/api/peers", may: watchers, serve: a.peers,
			summary: "The members of the mesh: whether this node reaches them just now, and how their clocks go", out: api.PeerList{}},
		{method: "POST", path: "/api/query", may: watchers, serve: a.query, wait: queryWait,
			summary: "Ask the ledger by one read-only SQL statement", in: api.QueryRequest{}, out: api.QueryReply{},
			params: []param{{"format", "query", "the form of the reply", "", []string{"json", "parquet"}}}, errors: []int{400, 413, 429, 503}},
		{method: "GET", path: "/api/events", may: readers, own: true, serve: a.events, stream: true,
			summary: "All that happens, in order, as server-sent events", out: api.Event{}, media: "text/event-stream",
			params: []param{
				{"Last-Event-ID", "header", "the id of the last event seen; those after it follow", "", nil},
				{"last_event_id", "query", "the same, for what cannot set a header", "", nil}}, errors: []int{400, 404, 429, 503}},
		{method: "POST", path: "/api/invites", may: admins, serve: a.invite,
			summary: "Mint an invite to the mesh", in: api.InviteRequest{}, out: api.InviteReply{}, errors: []int{400, 413, 503}},
		{method: "GET", path: "/api/invites", may: admins, serve: a.listInvites,
			summary: "List the invites, without their secrets", out: api.InviteList{}},
		{method: "DELETE", path: "/api/invites/{id}", may: admins, serve: a.dropInvite,
			summary: "Have an invite let nobody in any more", out: api.RevokeReply{}, errors: []int{404, 503}},
		{method: "POST", path: "/api/keys", may: admins, byKey: true, serve: a.createKey,
			summary: "Make an API key, which the reply shows once", in: api.KeyRequest{}, out: api.KeyReply{}, errors: []int{400, 413, 429, 503}},
		{method: "GET", path: "/api/keys", may: admins, serve: a.listKeys,
			summary: "List the API keys, without what opens", out: api.KeyList{}},
		{method: "DELETE", path: "/api/keys/{id}", may: admins, serve: a.revokeKey,
			summary: "Revoke an API key, and with it all tokens that were made with it", out: api.RevokeReply{}, errors: []int{404, 409, 503}},
		{method: "POST", path: "/api/tokens", may: keys, byKey: true, serve: a.mintToken,
			summary: "Make a JSON web token for an hour, for the key that asks or for a worker", in: api.TokenRequest{}, out: api.TokenReply{}, errors: []int{400, 413, 503}},
		{method: "GET", path: "/api/backup", may: admins, serve: a.backup, stream: true,
			summary: "The whole mesh but for files: its state, all rows and its secrets, as labmesh restore takes them", media: api.BackupType, errors: []int{429, 503}},
		{method: "GET", path: "/api/secrets", may: admins, serve: a.listSecrets,
			summary: "List the secrets by name; their values are shown to nobody", out: api.SecretList{}},
		{method: "PUT", path: "/api/secrets/{name}", may: admins, serve: a.putSecret,
			summary: "Keep a value for the tasks that ask for it by name", in: api.SecretRequest{}, out: api.SecretReply{}, errors: []int{400, 413, 429, 503}},
		{method: "DELETE", path: "/api/secrets/{name}", may: admins, serve: a.dropSecret,
			summary: "Forget a secret", out: api.SecretReply{}, errors: []int{404, 503}},
		{method: "GET", path: "/api/audit", may: admins, serve: a.auditLog,
			summary: "What was done to the mesh, by whom and from where, the newest first", out: api.AuditLog{}, errors: []int{400, 503}, params: []param{
				{"since", "query", "only what was done since then: a time, or how long ago, like 36h or 14d", "", nil},
				{"actor", "query", "only what this key did, by id or name, or this node", "", nil},
				{"action", "query", "only actions that contain this, like ban or POST", "", nil},
				{"limit", "query", "how many, 1 to 1000; 100 by default", 0, nil}}},
		{method: "POST", path: "/api/seal/rotate", may: admins, serve: a.rotateSeal,
			summary: "Have all that is secret sealed by a new key of the mesh", out: api.SealReply{}, errors: []int{409, 503}},
	}
}

func (a *API) workerRoutes() []route {
	return []route{
		{method: "POST", path: "/api/workers/register", may: hands | workers, own: true, serve: a.register,
			summary: "Make a worker known", in: api.RegisterRequest{}, out: api.RegisterReply{}, errors: []int{400, 413, 503}},
		{method: "GET", path: "/api/workers", may: readers, serve: a.listWorkers,
			summary: "List the workers", out: api.WorkerList{}},
		{method: "GET", path: "/api/workers/{id}", may: keys, own: true, serve: a.worker,
			summary: "One worker, and the tasks it holds or held lately", out: api.Worker{}, errors: []int{404}},
		{method: "POST", path: "/api/workers/{id}/drain", may: hands, serve: a.drain,
			summary: "Give a worker no more tasks; those that it runs go on", in: api.HoldRequest{}, out: api.HoldReply{}, errors: []int{400, 404, 413, 503}},
		{method: "POST", path: "/api/workers/{id}/undrain", may: hands, serve: a.undrain,
			summary: "Let a worker that was drained or quarantined take tasks again", out: api.HoldReply{}, errors: []int{404, 503}},
		{method: "POST", path: "/api/nodes/{id}/ban", may: admins, serve: a.ban,
			summary: "Shut a node out for ever, named by its id or by that of its worker; its tasks go elsewhere", out: api.BanReply{}, errors: []int{404, 409, 503}},
	}
}

func (a *API) taskRoutes() []route {
	return []route{
		{method: "POST", path: "/api/tasks", may: users, own: true, serve: a.submit,
			summary: "Submit a task", in: labmesh.Spec{}, out: api.SubmitReply{}, errors: []int{400, 413, 429, 503}},
		{method: "POST", path: "/api/tasks/batch", may: users, own: true, serve: a.submitBatch, wait: batchWait,
			summary: "Submit many tasks: all or none", in: api.BatchRequest{}, out: api.BatchReply{}, errors: []int{400, 413, 429, 503}},
		{method: "GET", path: "/api/tasks", may: readers, own: true, serve: a.listTasks,
			summary: "List tasks in the order of submits", out: api.TaskList{}, errors: []int{400, 503}, params: []param{
				{"status", "query", "only tasks with this status", "", words(labmesh.Phases())},
				{"type", "query", "only tasks of this type", "", words(labmesh.Kinds())},
				{"worker_id", "query", "only tasks that this worker holds, or held last", "", nil},
				{"limit", "query", "tasks in a page, 1 to 1000; 100 by default", 0, nil},
				{"cursor", "query", "the next_cursor of the page before", "", nil}}},
		{method: "GET", path: "/api/tasks/{id}", may: readers, own: true, serve: a.task,
			summary: "One task, with its result and its attempts", out: api.TaskDetail{}, errors: []int{404, 503}},
		{method: "POST", path: "/api/tasks/{id}/cancel", may: users, own: true, serve: a.cancel,
			summary: "Cancel a task", in: api.CancelRequest{}, out: api.CancelReply{}, errors: []int{400, 404, 413, 503}},
		{method: "GET", path: "/api/tasks/{id}/why", may: readers, own: true, serve: a.why,
			summary: "Why a task is where it is, above all why it waits", out: api.Why{}, errors: []int{404, 503}},
		{method: "GET", path: "/api/tasks/{id}/benchmarks", may: readers, own: true, serve: a.benchmarks,
			summary: "What a benchmark has measured so far", out: api.BenchList{}, errors: []int{400, 404, 503}, params: []param{
				{"limit", "query", "rows in a page, 1 to 1000; 100 by default", 0, nil},
				{"cursor", "query", "the next_cursor of the page before", "", nil}}},
		{method: "GET", path: "/api/tasks/{id}/logs", may: readers, own: true, serve: a.logs, stream: true,
			summary: "One stream of a task's output, from whichever node has it", media: "text/plain", errors: []int{400, 404, 429, 503}, params: []param{
				{"stream", "query", "which output; stdout by default", "", []string{"stdout", "stderr"}},
				{"attempt", "query", "number of the attempt, and no other; by default the newest and, when following, those that come", 0, nil},
				{"follow", "query", "go on until the task ends, also when it has not started yet", false, nil},
				{"after", "query", "go on from <attempt>-<bytes>: this attempt, so many bytes into it, and those after it", "", nil},
				{"frames", "query", "reply in frames, which say which bytes they hold, as " + api.LogFramesType, false, nil}}},
	}
}

func (a *API) reportRoutes() []route {
	filters := []param{
		{"model", "query", "only results of this model", "", nil},
		{"batch", "query", "only this batch size", 0, nil},
		{"worker", "query", "only this worker, by id or hostname", "", nil},
		{"engine", "query", "only this engine", "", nil},
		{"device", "query", "only this device: a class like cuda, or part of a name", "", nil},
		{"where", "query", "only tasks with this label, as label=value; may be there several times", "", nil},
		{"since", "query", "only what began since then: a time, or how long ago, like 36h or 14d", "", nil},
		{"format", "query", "the form of the reply; the Accept header may ask for it too", "", []string{"json", "svg", "png"}}}
	judge := append(slices.Clone(filters),
		param{"alpha", "query", "chance of calling equal things different; 0.01 by default", 0.0, nil},
		param{"effect", "query", "the smallest change that matters, as a share: 0.05 is 5 %", 0.0, nil})
	sides := append(slices.Clone(judge),
		param{"a", "query", "one side: " + report.SelectorHelp, "", nil},
		param{"b", "query", "the other side; without it the arms of the tasks that a chooses are compared", "", nil})
	bad := []int{400, 404, 413, 429, 503}
	return []route{
		{method: "GET", path: "/api/benchmarks/series", may: watchers, serve: a.benchSeries, wait: queryWait, drawn: true,
			summary: "Latency and throughput over the batch size, by engine and device", out: report.CurveSet{}, params: filters, errors: bad},
		{method: "GET", path: "/api/benchmarks/trend", may: watchers, serve: a.benchTrend, wait: queryWait, drawn: true,
			summary: "Series of benchmark results over time, and where they changed", out: report.Trends{}, params: judge, errors: bad},
		{method: "GET", path: "/api/benchmarks/compare", may: watchers, serve: a.benchCompare, wait: queryWait, drawn: true,
			summary: "Whether benchmark results b are slower than a", out: report.Comparisons{}, params: sides, errors: bad},
	}
}

func (a *API) fileRoutes() []route {
	attempt := param{"attempt", "query", "number of the attempt; the newest that left any by default", 0, nil}
	return []route{
		{method: "POST", path: "/api/bundles/missing", may: users, serve: a.missingChunks,
			summary: "Which chunks of a bundle this node lacks", in: api.MissingRequest{}, out: api.MissingReply{}, errors: []int{400, 413, 503}},
		{method: "POST", path: "/api/bundles/chunks", may: users, serve: a.putChunks, wait: uploadWait,
			summary: "Send chunks of a bundle: before each its size as four bytes, the highest first", inMedia: api.ChunksType,
			out: api.ChunksReply{}, errors: []int{400, 413, 503}},
		{method: "POST", path: "/api/bundles", may: users, serve: a.putBundle, wait: batchWait,
			summary: "Send the manifest of a bundle whose chunks are here", inMedia: api.ManifestType,
			out: api.Bundle{}, errors: []int{400, 409, 413, 503}},
		{method: "GET", path: "/api/tasks/{id}/artifacts", may: readers, own: true, serve: a.artifacts, wait: fetchWait,
			summary: "List the files that an attempt left", out: api.Artifacts{}, errors: []int{400, 404, 503}, params: []param{attempt}},
		{method: "GET", path: "/api/tasks/{id}/artifacts/{path...}", may: readers, own: true, serve: a.artifact, wait: fetchWait,
			summary: "One of these files", media: "application/octet-stream", errors: []int{400, 404, 503}, params: []param{attempt}},
	}
}

func (a *API) selfRoutes() []route {
	return []route{
		{method: "GET", path: "/healthz", may: open, serve: a.healthz,
			summary: "Whether this node is alive", out: api.Health{}},
		{method: "GET", path: "/readyz", may: open, serve: a.readyz,
			summary: "Whether this node knows a leader and has caught up", out: api.Health{}, errors: []int{503}},
		{method: "GET", path: "/metrics", may: watchers, serve: a.metrics.serve,
			summary: "Figures for Prometheus", media: "text/plain"},
		{method: "GET", path: "/openapi.json", may: keys, serve: a.openapi,
			summary: "This API, described by OpenAPI", out: map[string]any{}},
	}
}

// patience gives a request the time that its route may take, from being read to
// being answered, in place of the server's own limits.
func (rt *route) patience(w http.ResponseWriter, usual time.Duration) {
	var until time.Time // never
	if !rt.stream {
		wait := rt.wait
		orElse(&wait, usual)
		until = time.Now().Add(wait)
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(until) // a recorder in a test has none
	_ = rc.SetWriteDeadline(until)
}

// allow is the methods of a path as the Allow header has them.
func (m methods) allow() string {
	var out []string
	for method := range m {
		out = append(out, method)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func words[S ~string](from []S) []string {
	out := make([]string, len(from))
	for i, s := range from {
		out[i] = string(s)
	}
	return out
}
