package nodetest_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/node/httpapi"
	"labmesh/node/nodetest"
	"labmesh/security"
)

// given is a runner that writes down what secrets attempts were given.
type given struct {
	mu     sync.Mutex
	values map[labmesh.TaskID]string
}

func (g *given) Run(_ context.Context, a exec.Attempt) labmesh.Outcome {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.values[a.Task.ID] = a.Secrets["TOKEN"]
	return labmesh.Outcome{OK: true}
}

func (g *given) to(id labmesh.TaskID) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.values[id]
}

// ringOf is the seal keys on the disk of node i.
func ringOf(t *testing.T, m *nodetest.Mesh, i int) security.Ring {
	t.Helper()
	path := filepath.Join(m.Dir(i), "seal.keys")
	data, err := os.ReadFile(path)
	if err != nil {
		return security.Ring{}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("seal.keys of node %d: %v, %v", i, info.Mode(), err)
	}
	ring, err := security.ParseRing(data)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// runsWith has each node's worker run a task, and checks which value it is given.
func runsWith(t *testing.T, m *nodetest.Mesh, via int, g *given, want string, workers ...string) {
	t.Helper()
	for _, w := range workers {
		id := m.Submit(t, via, labmesh.Spec{Secrets: []string{"TOKEN"}, Requirements: labmesh.Requirements{WorkerID: labmesh.WorkerID(w)}})
		m.Wait(t, time.Minute, "the task on "+w, func() bool { return m.Task(t, via, id).Phase.Final() })
		if got := g.to(id); got != want {
			t.Errorf("the attempt on %s was given %q, want %q (%s)", w, got, want, m.Task(t, via, id).Error)
		}
	}
}

// TestSecretsAreSealedAndOpenEverywhere: by keys that every replica gets, also one that comes
// later, while keys are rotated, leaders fall and nodes are away.
func TestSecretsAreSealedAndOpenEverywhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &given{values: map[labmesh.TaskID]string{}}
		m := nodetest.Start(t, 3, map[labmesh.Kind]exec.Runner{labmesh.Custom: g})
		ctx := t.Context()
		if err := m.Nodes[1].Service().PutSecret(ctx, labmesh.Secret{Name: "TOKEN", Value: "first"}); err != nil {
			t.Fatal(err)
		}
		runsWith(t, m, 1, g, "first", "w0", "w1", "w2")

		m.JoinLeaf(t)
		m.Join(t, nodetest.Plain()) // the fifth, a replica
		runsWith(t, m, 1, g, "first", "w3", "w4")
		if n := len(ringOf(t, m, 3).IDs()); n != 0 {
			t.Errorf("the leaf has %d seal keys", n)
		}

		m.Halt(t, 2) // it is away while the key changes
		old := ringOf(t, m, 0).IDs()
		id, err := m.Nodes[1].Service().RotateSeal(ctx, "ada")
		if err != nil || len(old) != 1 || old[0] == id {
			t.Fatalf("rotate: %q after %v, %v", id, old, err)
		}
		time.Sleep(5 * time.Second) // for all to be sealed anew
		runsWith(t, m, 1, g, "first", "w0", "w1", "w3", "w4")
		m.Run(t, 2)
		m.Halt(t, m.Leader(t).Index)
		leader := m.Leader(t)
		if err := leader.Service().PutSecret(ctx, labmesh.Secret{Name: "TOKEN", Value: "second"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		runsWith(t, m, leader.Index, g, "second", "w2")
		if _, ok := ringOf(t, m, 2).Key(id); !ok {
			t.Errorf("the node that was away has the keys %v, and lacks %s", ringOf(t, m, 2).IDs(), id)
		}
	})
}

// TestASecretIsForTheProjectsThatItNames: a submitter may not have a task of its project print it else.
func TestASecretIsForTheProjectsThatItNames(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := nodetest.Start(t, 1, map[labmesh.Kind]exec.Runner{labmesh.Custom: &nodetest.Runner{}})
		ctx, svc := t.Context(), m.Nodes[0].Service()
		if err := svc.PutSecret(ctx, labmesh.Secret{Name: "TOKEN", Value: "v", Projects: []string{"vision"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := svc.RotateSeal(ctx, "ada"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second) // it is sealed anew, and for the same projects
		for _, c := range []struct {
			by httpapi.Caller
			ok bool
		}{
			{httpapi.Caller{ID: "a", Role: labmesh.RoleAdmin}, true},
			{httpapi.Caller{ID: "o", Role: labmesh.RoleOperator, Project: "speech"}, true},
			{httpapi.Caller{ID: "v", Role: labmesh.RoleSubmitter, Project: "vision"}, true},
			{httpapi.Caller{ID: "s", Role: labmesh.RoleSubmitter, Project: "speech"}, false},
		} {
			_, err := svc.Submit(ctx, c.by, []labmesh.Spec{{Kind: labmesh.Custom, Config: []byte(`{"name":"x"}`), Secrets: []string{"TOKEN"}}})
			if (err == nil) != c.ok {
				t.Errorf("%s of %q: %v", c.by.Role, c.by.Project, err)
			}
		}
	})
}
