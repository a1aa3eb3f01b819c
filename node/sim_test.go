package node

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"labmesh/node/simtest"
)

var (
	simSeed  = flag.Uint64("seed", 0, "run the simulation with this seed alone")
	simSeeds = flag.Int("seeds", 10, "how many seeds to run the simulation with")
	simFirst = flag.Uint64("first", 1, "the first of them")
	simKeep  = flag.String("keep", "", "with -seed: write the least plan that still fails to this file")
	simFlaw  = flag.String("flaw", "", "build this flaw into the mesh (see flaw)")
)

// simSize is what each seed is about.
var simSize = simtest.Size{Nodes: 5, Workers: 20, Clients: 5, Orders: 5, Chaos: 12 * time.Second, FaultsMax: 7}

// Limits of a simulation, in its own time.
const (
	simSlots  = 2
	simSetUp  = time.Minute
	simSettle = 2 * time.Minute // from when all is healed until every task has ended
	simAdvert = 2 * time.Second
	syncLeast = 100 * time.Microsecond // that a disk takes
)

// overlapMax is how long two attempts of one task may run at the same time: a
// worker has stopped what it ran before the mesh gives that to another.
const overlapMax = 0

// TestSim runs meshes of five nodes and twenty workers through the work and the
// faults of one seed after another, and checks all that is promised.
func TestSim(t *testing.T) {
	if *simSeed != 0 {
		simulate(t, simtest.NewPlan(*simSeed, simSize))
		return
	}
	for seed := *simFirst; seed < *simFirst+uint64(*simSeeds); seed++ { //nolint:gosec // not negative
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			simulate(t, simtest.NewPlan(seed, simSize))
		})
	}
}

// simKept is where the plans are that failed once, as small as they could be made.
const simKept = "testdata/sim"

// TestSimKept plays the plans that have failed once. Each is a file with a name that says what was wrong.
func TestSimKept(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(simKept, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no plans in %s: %v", simKept, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			t.Parallel()
			simulate(t, keptPlan(t, file))
		})
	}
}

func keptPlan(t *testing.T, file string) (plan simtest.Plan) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &plan)
	}
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func simulate(t *testing.T, plan simtest.Plan) {
	t.Helper()
	err := play(t, plan, flaw(*simFlaw))
	if err == nil {
		return
	}
	t.Errorf("%v\n%sagain: go test ./node -run 'TestSim$' -seed %d -count 20", err, plan, plan.Seed)
	if *simKeep == "" {
		return
	}
	data, err := json.Marshal(least(t, plan, flaw(*simFlaw)))
	if err == nil {
		err = os.WriteFile(*simKeep, append(data, '\n'), 0o600)
	}
	if err != nil {
		t.Error(err)
	}
}

// play runs a mesh through a plan and returns what was wrong.
func play(t *testing.T, plan simtest.Plan, f flaw) (err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { err = newSim(t, plan, f).play(t, plan) })
	return err
}

// The checks, by what they find.
var (
	errSetUp    = errors.New("the mesh was not set up")
	errClients  = errors.New("a client was told what cannot be")
	errSettled  = errors.New("not settled after all was healed")
	errReplicas = errors.New("replicas or verdicts differ")
	errHistory  = errors.New("no order explains what clients and workers saw")
	errExecuted = errors.New("what the mesh says is not what ran")
	errOverlaps = errors.New("attempts overlapped")
)

func (s *sim) play(t *testing.T, plan simtest.Plan) error {
	defer s.stop()
	if err := s.found(t.Context()); err != nil {
		return fmt.Errorf("%w: %w", errSetUp, err)
	}
	clients := simtest.Drive(t.Context(), plan, s, s.history, s.trail)
	settled := s.settle(t.Context())
	longest, overlaps := simtest.Overlaps(s.executions.All(), overlapMax)
	t.Logf("%d executions of %d tasks; two of one task ran at once for %s at most", len(s.executions.All()), len(plan.Orders), longest)
	var errs []error
	for _, c := range []struct{ what, found error }{
		{errClients, clients}, {errSettled, settled}, {errReplicas, s.trail.Err()}, {errHistory, s.history.Check()}, {errExecuted, s.executed()}, {errOverlaps, overlaps},
	} {
		if c.found != nil {
			errs = append(errs, fmt.Errorf("%w: %w", c.what, c.found))
		}
	}
	return errors.Join(errs...)
}

// simTries is how often a plan is played before it counts as one that does not fail.
const simTries = 5

// least leaves out of a plan that fails what it fails without.
func least(t *testing.T, plan simtest.Plan, f flaw) simtest.Plan {
	t.Helper()
	fails := func(p simtest.Plan) bool {
		for range simTries {
			if play(t, p, f) != nil {
				return true
			}
		}
		return false
	}
	for _, smaller := range []func(simtest.Plan, int, int) simtest.Plan{
		func(p simtest.Plan, i, n int) simtest.Plan {
			p.Faults = slices.Delete(slices.Clone(p.Faults), min(i, len(p.Faults)), min(i+n, len(p.Faults)))
			return p
		},
		func(p simtest.Plan, i, n int) simtest.Plan {
			p.Orders = slices.Delete(slices.Clone(p.Orders), min(i, len(p.Orders)), min(i+n, len(p.Orders)))
			return p
		},
	} {
		size := func(p simtest.Plan) int { return len(p.Faults) + len(p.Orders) }
		for n := 8; n > 0; n /= 2 {
			for i := 0; ; {
				p := smaller(plan, i, n)
				switch {
				case size(p) == size(plan):
				case fails(p):
					plan = p
					continue
				default:
					i += n
					continue
				}
				break
			}
		}
	}
	return plan
}
