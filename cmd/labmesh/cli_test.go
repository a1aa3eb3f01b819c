package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"labmesh"
	"labmesh/api"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file under testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; go test -update writes it anew\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{labmesh.Refuse(labmesh.Internal, "x"), 1},
		{usagef("x"), 2},
		{fmt.Errorf("more: %w", labmesh.Refuse(labmesh.Invalid, "x")), 2},
		{labmesh.Refuse(labmesh.NotFound, "x"), 2},
		{labmesh.Refuse(labmesh.TooLarge, "x"), 2},
		{labmesh.Refuse(labmesh.Conflict, "x"), 2},
		{labmesh.Refuse(labmesh.Unavailable, "x"), 3},
		{labmesh.Refuse(labmesh.Exhausted, "x"), 3},
		{labmesh.Refuse(labmesh.Denied, "x"), 4},
		{context.DeadlineExceeded, 124},
		{fmt.Errorf("wait: %w", context.Canceled), 130},
		{exitError{42, ""}, 42},
		{usageError{labmesh.Refuse(labmesh.Unavailable, "x")}, 2},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
	}
}

func TestBadUsage(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	for line, inErr := range map[string]string{
		"stauts":                       "did you mean status?",
		"completion tcsh":              `there is no command "tcsh"`,
		"status x":                     "it takes no arguments",
		"task":                         "it takes one task id",
		"run":                          "it takes a program to run",
		"run --cpus x y":               "--cpus",
		"run --no-such-flag y":         "--no-such-flag",
		"run --tag x y":                "--tag x: it is KEY=VALUE",
		"run --env UNSET_HERE y":       "--env UNSET_HERE: it is not set here",
		"run --priority 99999999 y":    "priority",
		"run --timeout=-1s y":          "timeout_seconds",
		"tasks --status lost":          "it is one of pending",
		"tasks --limit 0":              "--limit 0",
		"logs --stream x t1":           "it is stdout or stderr",
		"invite --role boss":           "it is node or worker",
		"invite --ttl 1ms":             "--ttl",
		"invite --uses 0":              "--uses",
		"sql":                          "one statement",
		"sql --format xml SELECT":      "table, json, csv or parquet",
		"sql --max-rows=-1 SELECT":     "--max-rows",
		"sql -o /no/such/dir/x SELECT": "/no/such/dir/x",
		"submit x":                     "open x: no such file",
		"submit -f /no/such/file":      "/no/such/file",
		"submit --timeout 1s":          "--wait",
		"--addr ftp://x status":        "is not the address of a node",
		"cancel":                       "it takes task ids",
		"task nonesuch":                "nonesuch: Task not found",
		"logs nonesuch":                "nonesuch",
		"logs -f nonesuch":             "nonesuch",
		"cancel nonesuch":              "nonesuch: Task not found",
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			n.labmesh(t, strings.Fields(line)...).want(t, 2, "", inErr)
		})
	}
	n.with(t, t.Context(), "", map[string]string{"LABMESH_CPUS": "two"}, "run", "x").want(t, 2, "", "LABMESH_CPUS")
}

func TestNoNode(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	home := map[string]string{"HOME": t.TempDir()}
	labmeshWith(t.Context(), "", home, "status").want(t, 3, "", "no labmesh node found")
	labmeshWith(t.Context(), "", home, "run", "x").want(t, 3, "", "start one with `labmesh up`")
	labmeshWith(t.Context(), "", home, "--addr", gone.URL, "tasks").want(t, 3, "", "no labmesh node answers at "+gone.URL)
	labmeshWith(t.Context(), `{"type":"custom","config":{"name":"true"}}`, home, "--addr", gone.URL, "submit", "--wait").want(t, 3, "", "no labmesh node answers at "+gone.URL)
}

func TestNotPermitted(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.labmesh(t, "--api-key", "wrong", "status").want(t, 4, "", "Authentication required (pass a key with --api-key")
	n.labmesh(t, "--api-key", "wrong", "run", "x").want(t, 4, "", "Authentication required")
}

func TestNoLeader(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.override = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/status" {
			answer(w, 200, api.Status{Node: "n1", Role: "voter", Voters: []labmesh.NodeID{"n1", "n2", "n3"}, Quorum: 2, Warnings: []string{"no leader for 4 s"}})
			return true
		}
		w.Header().Set("Retry-After", "60") // longer than anybody waits
		answer(w, 503, api.Error{Message: "no leader"})
		return true
	}
	r := n.labmesh(t, "status")
	if r.code != 3 || !strings.Contains(r.stdout, "none (term 0)") || !strings.Contains(r.stdout, "warning: no leader for 4 s") || !strings.Contains(r.err, "no leader") {
		t.Errorf("%+v", r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // whoever cannot wait: the client would be patient for ten seconds
	if r := n.with(t, ctx, "", nil, "run", "--detach", "x"); r.code != exitInterrupted {
		t.Errorf("%+v", r)
	}
}

func TestStatusReadsWell(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	status := api.Status{
		Node: "n2", Mesh: "m1", Role: "voter", Leader: "n1", Term: 4, Voters: []labmesh.NodeID{"n1", "n2", "n3"}, VotersAlive: 3, Quorum: 2,
		Replicas: []labmesh.NodeID{"n1", "n2", "n3"}, Uptime: 3700, Version: "v1", Applied: 120, Ledger: 100, Stale: 0.05,
		Workers: api.WorkerCounts{Total: 3, Active: 2, Idle: 1, Offline: 1}, Tasks: map[string]int{"total": 9, "running": 2, "completed": 7},
	}
	n.override = func(w http.ResponseWriter, _ *http.Request) bool { answer(w, 200, status); return true }
	n.labmesh(t, "status").want(t, 0, ""+
		"mesh      m1\n"+
		"node      n2 (voter, up 1h1m, version v1)\n"+
		"leader    n1 (term 4)\n"+
		"voters    3, quorum 2: the mesh survives the loss of any one of them\n"+
		"replicas  3, and 0 leaves\n"+
		"log       applied 120, ledger 100 (20 behind), heard of the leader 50ms ago\n"+
		"workers   3: 2 active (1 idle), 1 offline\n"+
		"tasks     9: 2 running, 7 completed\n", "")
	if r := n.labmesh(t, "status", "--json"); r.code != 0 || !strings.Contains(r.stdout, `"leader": "n1"`) {
		t.Errorf("%+v", r)
	}
	for voters, want := range map[int]string{1: "no failover", 2: "no failover", 5: "any 2 of them"} {
		if got := survives(api.Status{Voters: make([]labmesh.NodeID, voters), VotersAlive: voters, Quorum: voters/2 + 1}); !strings.Contains(got, want) {
			t.Errorf("%d voters: %q", voters, got)
		}
	}
}

func TestTablesAndJSON(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.labmesh(t, "run", "--detach", "--name", "a\x1b[31mb", "x").want(t, 2, "", "name: it holds a control character")
	n.labmesh(t, "run", "--detach", "--name", "first", "x").want(t, 0, "t1\n", "")
	n.labmesh(t, "tasks").want(t, 0, ""+
		"TASK  TYPE    NAME   STATUS     PRIORITY  WORKER  ATTEMPTS  SUBMITTED  TOOK\n"+
		"t1    custom  first  completed  1         w1      1         55s ago    1.5s\n", "")
	if r := n.labmesh(t, "tasks", "--json"); !strings.HasPrefix(r.stdout, "[\n") || !strings.Contains(r.stdout, `"created": "2026-01-02T03:04:05.000000Z"`) {
		t.Errorf("%+v", r)
	}
	if r := n.labmesh(t, "task", "t1"); r.code != 0 || !strings.Contains(r.stdout, "status     completed\n") {
		t.Errorf("%+v", r)
	}
	n.labmesh(t, "cancel", "t1").want(t, 2, "", "t1: Cannot cancel task in completed state")
}

func TestInviteIsAloneOnStdout(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.override = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/api/invites" {
			return false
		}
		answer(w, 200, api.InviteReply{Invite: "lminv_abc"})
		return true
	}
	n.labmesh(t, "invite", "--role", "worker", "--ttl", "1h", "--uses", "3").want(t, 0, "lminv_abc\n", "")
}

func TestSQLFormats(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.override = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("format") == "parquet" {
			fmt.Fprint(w, "PAR1")
			return true
		}
		fmt.Fprint(w, `{"columns":["id","name"],"types":["BIGINT","VARCHAR"],"rows":[[9007199254740993,"a,\"b"],[2,null]],"truncated":true,"log_index":7}`)
		return true
	}
	const more = "Only the first 2 rows"
	n.labmesh(t, "sql", "SELECT 1").want(t, 0, "id                name\n9007199254740993  a,\"b\n2                 NULL\n", more)
	n.labmesh(t, "sql", "--format", "csv", "SELECT 1").want(t, 0, "id,name\n9007199254740993,\"a,\"\"b\"\n2,\n", more)
	if r := n.labmesh(t, "sql", "--json", "SELECT 1"); r.code != 0 || !strings.Contains(r.stdout, "9007199254740993") {
		t.Errorf("%+v", r)
	}
	file := filepath.Join(t.TempDir(), "x.parquet")
	n.labmesh(t, "sql", "--format", "parquet", "-o", file, "SELECT 1").want(t, 0, "", "")
	if got, err := os.ReadFile(file); err != nil || string(got) != "PAR1" {
		t.Errorf("file holds %q, %v", got, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestLogsGoWhereTheyBelong(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.logs = map[string]string{"stdout": "out\n", "stderr": "err\n"}
	n.labmesh(t, "run", "--detach", "x").want(t, 0, "t1\n", "")
	n.labmesh(t, "logs", "t1").want(t, 0, "out\n", "err\n")
	n.labmesh(t, "logs", "-f", "--stream", "stderr", "t1").want(t, 0, "err\n", "")
}

func TestCtrlCEndsOnlyTheFollowing(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.fate = func(_ labmesh.Spec, task *api.TaskDetail) { task.Status = labmesh.Running }
	n.labmesh(t, "run", "--detach", "x").want(t, 0, "t1\n", "")
	ctx, interrupt := context.WithCancel(t.Context())
	n.override = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/logs") {
			return false
		}
		w.Header().Set("Content-Type", api.LogFramesType)
		_, _ = w.Write(api.LogFrame{Kind: api.LogStill}.AppendTo(nil))
		_ = http.NewResponseController(w).Flush()
		interrupt()
		<-r.Context().Done()
		return true
	}
	n.with(t, ctx, "", nil, "logs", "-f", "t1").want(t, exitInterrupted, "", "")
	if got := n.tasks["t1"].Status; got != labmesh.Running {
		t.Errorf("the task is %s", got)
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	root := newRootCommand(newApp(nil, nil, nil, func(string) (string, bool) { return "", false }))
	for _, c := range subcommands(&app{}) {
		name := c.Name()
		if c.Hidden {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.Example == "" {
				t.Error("it has no example")
			}
			r := labmeshWith(t.Context(), "", nil, name, "--help")
			if r.code != 0 || r.err != "" || !strings.Contains(r.stdout, "Examples:") {
				t.Errorf("%+v", r)
			}
		})
	}
	for _, name := range []string{"invite", "status", "workers", "run", "test", "bench", "submit", "tasks", "task", "why", "cancel", "logs", "sql", "compare", "trend", "secret", "version", "completion"} {
		if c, _, err := root.Find([]string{name}); err != nil || c.Name() != name {
			t.Errorf("no command %s: %v", name, err)
		}
	}
	for _, newCommand := range []func(*app) *cobra.Command{newRunCommand, newSubmitCommand, newTestCommand, newBenchCommand, newSQLCommand, newCompareCommand, newTrendCommand} {
		c := newCommand(&app{})
		golden(t, "help/"+c.Name()+".txt", c.UsageString())
	}
}
