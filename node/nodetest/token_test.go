package nodetest_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/node/httpapi"
	"labmesh/node/nodetest"
	"labmesh/store"
)

// key makes an API key through node i, and waits until all nodes know it.
func key(t *testing.T, m *nodetest.Mesh, i int, r httpapi.KeyRequest) (text string, c httpapi.Caller) {
	t.Helper()
	text, _, err := m.Nodes[i].Service().CreateKey(t.Context(), httpapi.Caller{}, r)
	if err != nil {
		t.Fatal(err)
	}
	m.Wait(t, time.Minute, "the key on all nodes", func() bool {
		for _, n := range m.Nodes {
			if c, err = n.Service().Authenticate(text); err != nil {
				return false
			}
		}
		return true
	})
	return text, c
}

// token makes a token through node i.
func token(t *testing.T, m *nodetest.Mesh, i int, c httpapi.Caller, worker labmesh.WorkerID) (out httpapi.Token) {
	t.Helper()
	m.Wait(t, time.Minute, "a token", func() bool {
		var err error
		out, err = m.Nodes[i].Service().MintToken(t.Context(), c, worker)
		return err == nil
	})
	return out
}

func TestTokensHoldOnEveryNodeAndOutliveLeaders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := nodetest.Start(t, 3, nil)
		text, c := key(t, m, 1, httpapi.KeyRequest{Role: labmesh.RoleSubmitter, Project: "vision", Name: "ci"})
		made := token(t, m, 2, c, "")
		check := func(when string, nodes ...int) {
			t.Helper()
			for _, i := range nodes {
				m.Wait(t, 10*time.Second, "node "+string(rune('0'+i))+" "+when, func() bool {
					got, err := m.Nodes[i].Service().Authenticate(made.Text)
					want := httpapi.Caller{ID: c.ID, Name: "ci", Role: labmesh.RoleSubmitter, Project: "vision", Token: true}
					return err == nil && got == want
				})
			}
		}
		check("at first", 0, 1, 2)
		leader := m.Leader(t)
		m.Halt(t, leader.Index)
		rest := slices.DeleteFunc([]int{0, 1, 2}, func(i int) bool { return i == leader.Index })
		m.Leader(t, leader.Index)
		check("under another leader", rest...)
		m.Run(t, leader.Index)
		check("after a restart", leader.Index)
		if err := m.Nodes[0].Service().RevokeKey(t.Context(), c.ID, "test"); err != nil {
			t.Fatal(err)
		}
		m.Wait(t, time.Second, "refusals everywhere", func() bool {
			for _, n := range m.Nodes {
				for _, credential := range []string{text, made.Text} {
					if _, err := n.Service().Authenticate(credential); labmesh.ReasonOf(err) != labmesh.Denied || !strings.Contains(err.Error(), "revoked") {
						return false
					}
				}
			}
			return true
		})
	})
}

func TestATokenEndsWithItsKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := nodetest.Start(t, 1, nil)
		_, c := key(t, m, 0, httpapi.KeyRequest{Role: labmesh.RoleObserver, TTL: 10 * time.Minute})
		made := token(t, m, 0, c, "")
		if left := time.Until(made.Expires); left > 10*time.Minute {
			t.Errorf("a token for %s of a key that ends before", left)
		}
		for minutes, ok := range []bool{true, false} {
			if _, err := m.Nodes[0].Service().Authenticate(made.Text); (err == nil) != ok {
				t.Errorf("after %d × 11 minutes: %v", minutes, err)
			}
			time.Sleep(11 * time.Minute)
		}
		keys := 0
		events, err := m.Nodes[0].Ledger().Events(t.Context(), store.Position{}, 0)
		for _, e := range events {
			if e.Type == labmesh.TokenKeyMade {
				keys++
			}
		}
		if err != nil || keys != 1 {
			t.Errorf("%d keys for tokens on the first day, %v", keys, err)
		}
	})
}

// TestLastUseIsTakenDownNowAndThen uses a key all the time for an hour.
func TestLastUseIsTakenDownNowAndThen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := nodetest.Start(t, 1, nil)
		text, c := key(t, m, 0, httpapi.KeyRequest{Role: labmesh.RoleObserver})
		svc := m.Nodes[0].Service()
		changes, last := 0, time.Time{}
		for range 3600 {
			if _, err := svc.Authenticate(text); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			keys, err := svc.ListKeys(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(keys, func(k labmesh.Key) bool { return k.ID == c.ID })
			if !keys[i].LastUsed.Equal(last) {
				changes, last = changes+1, keys[i].LastUsed
			}
		}
		if since := time.Since(last); changes < 8 || changes > 13 || since > 7*time.Minute {
			t.Errorf("%d words of it in an hour, the last %s ago", changes, since)
		}
	})
}

// TestAMeshThatIsNotUpgradedKeepsItsKeys runs nodes of a build that knows no roles.
func TestAMeshThatIsNotUpgradedKeepsItsKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := nodetest.StartAt(t, 1, 3, nil)
		_, c := key(t, m, 0, httpapi.KeyRequest{Role: labmesh.RoleAdmin, Name: "old"})
		svc := m.Nodes[0].Service()
		if _, err := svc.MintToken(t.Context(), c, ""); labmesh.ReasonOf(err) != labmesh.Unavailable {
			t.Errorf("a token: %v", err)
		}
		if _, _, err := svc.CreateKey(t.Context(), c, httpapi.KeyRequest{Role: labmesh.RoleObserver}); err == nil {
			t.Error("a key with a role that some nodes would not know")
		} else if labmesh.ReasonOf(err) == labmesh.Internal {
			t.Errorf("refused without a reason: %v", err)
		}
		if err := svc.RevokeKey(t.Context(), c.ID, "test"); err == nil {
			t.Error("a key is revoked that other nodes would still take")
		}
		time.Sleep(10 * time.Minute) // the word of its use does not enter the log either
		if _, err := svc.Submit(t.Context(), c, []labmesh.Spec{{Kind: labmesh.Custom}}); err != nil {
			t.Error(err)
		}
	})
}

// TestASubmitterAcrossNodes submits the same in three projects.
func TestASubmitterAcrossNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := nodetest.Start(t, 3, nil)
		_, vision := key(t, m, 0, httpapi.KeyRequest{Role: labmesh.RoleSubmitter, Project: "vision", Name: "a"})
		_, audio := key(t, m, 0, httpapi.KeyRequest{Role: labmesh.RoleSubmitter, Project: "audio", Name: "b"})
		spec := labmesh.Spec{Kind: labmesh.Custom, IdempotencyKey: "nightly", Requirements: labmesh.Requirements{WorkerID: "nobody"}}
		ids := map[labmesh.TaskID]httpapi.Caller{}
		for i, c := range []httpapi.Caller{vision, audio, {Name: "root"}} {
			for _, existed := range []bool{false, true} {
				a, err := m.Nodes[(i+1)%3].Service().Submit(t.Context(), c, []labmesh.Spec{spec})
				if err != nil || a[0].Existed != existed {
					t.Fatalf("%s: %+v, %v", c.Project, a, err)
				}
				ids[a[0].Task] = c
			}
		}
		if len(ids) != 3 {
			t.Fatalf("%d tasks for three projects", len(ids))
		}
		for id, c := range ids {
			task, err := m.Nodes[0].Service().Task(t.Context(), id)
			if err != nil || task.Project != c.Project || task.By != c.Who() {
				t.Errorf("%s of %q: %q by %q, %v", id, c.Project, task.Project, task.By, err)
			}
			list, _, err := m.Nodes[0].Service().ListTasks(t.Context(), httpapi.TaskFilter{Project: c.Project, Limit: 10})
			if err != nil || len(list) < 1 || c.Project == "" && len(list) < 3 || c.Project != "" && slices.ContainsFunc(list, func(t labmesh.Task) bool { return t.Project != c.Project }) {
				t.Errorf("in %q: %d tasks, %v", c.Project, len(list), err)
			}
			_, err = m.Nodes[0].Service().Submit(t.Context(), audio, []labmesh.Spec{{Kind: labmesh.Custom, DependsOn: []labmesh.TaskID{id}}})
			if (err == nil) != (c.Project == "audio") {
				t.Errorf("audio after a task of %q: %v", c.Project, err)
			}
			_, err = m.Nodes[0].Service().Submit(t.Context(), vision, []labmesh.Spec{{Kind: labmesh.Custom, TaskID: id}})
			if (err == nil) != (c.Project == "vision") || err != nil && labmesh.ReasonOf(err) != labmesh.Conflict {
				t.Errorf("vision takes the id of a task of %q: %v", c.Project, err)
			}
		}
	})
}
