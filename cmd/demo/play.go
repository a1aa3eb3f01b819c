package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"labmesh"
	"labmesh/client"
	"labmesh/lab"
)

// play is the demonstration, from the founding of the mesh to the verdict.
type play struct {
	*screen
	mesh    *lab.Mesh
	witness *lab.Witness // on the nodes that survive

	ids    []labmesh.TaskID
	want   map[labmesh.TaskID]labmesh.Phase
	long   []labmesh.TaskID // that run beside the leader when it dies
	killed *lab.Node

	failover time.Duration // from the kill to the next result
	tally    lab.Tally
}

func (o options) play(ctx context.Context, s *screen, dir string) (err error) {
	from, err := examples()
	if err != nil {
		return err
	}
	m, err := o.mesh(ctx, s, dir)
	if err != nil {
		return err
	}
	p := &play{screen: s, mesh: m, want: map[labmesh.TaskID]labmesh.Phase{}}
	defer func() {
		if err != nil && ctx.Err() == nil {
			p.showLogs()
		}
		err = errors.Join(err, m.Close())
	}()
	leader, err := m.Leader(ctx)
	if err != nil {
		return err
	}
	s.say("three voters; %s leads", leader.Name)
	p.witness = m.Witness(ctx, m.Followers(leader)...)
	defer p.witness.Close()
	if err := p.submit(ctx, leader, mix(o.tasks, from)); err != nil {
		return err
	}
	if err := p.killLeader(ctx, leader); err != nil {
		return err
	}
	if err := p.finish(ctx); err != nil {
		return err
	}
	if err := p.comeBack(ctx); err != nil {
		return err
	}
	return errors.Join(p.compare(ctx), p.verdict(ctx))
}

// submit spreads the tasks over all three nodes, and gives each that will
// survive one that runs through it all.
func (p *play) submit(ctx context.Context, leader *lab.Node, all []work) error {
	for _, n := range p.mesh.Followers(leader) {
		ids, err := p.hand(ctx, n, long(n))
		if err != nil {
			return err
		}
		p.long = append(p.long, ids...)
	}
	for i, n := range p.mesh.Nodes {
		part := all[i*len(all)/len(p.mesh.Nodes) : (i+1)*len(all)/len(p.mesh.Nodes)]
		if _, err := p.hand(ctx, n, part...); err != nil {
			return err
		}
		p.say("%d tasks submitted to %s: programs, scripts, Python and Go tests", len(part), n.Name)
	}
	return nil
}

// hand submits tasks to one node.
func (p *play) hand(ctx context.Context, n *lab.Node, part ...work) ([]labmesh.TaskID, error) {
	specs := make([]labmesh.Spec, len(part))
	for i, w := range part {
		specs[i] = w.spec
	}
	reply, err := n.Client().SubmitBatch(ctx, specs)
	if err != nil {
		return nil, fmt.Errorf("submit to %s: %w", n.Name, err)
	}
	for i, id := range reply.IDs {
		p.want[id] = part[i].want
	}
	p.ids = append(p.ids, reply.IDs...)
	return reply.IDs, nil
}

// killLeader kills the leader when a third of the tasks are done and the long
// ones run, and waits for the first result of the next.
func (p *play) killLeader(ctx context.Context, leader *lab.Node) error {
	rest := p.mesh.Followers(leader)
	err := p.until(ctx, func() bool {
		for _, id := range p.long {
			if d, err := rest[0].Client().Task(ctx, id); err != nil || d.Status != labmesh.Running {
				return false
			}
		}
		return p.witness.Ended() >= len(p.ids)/3
	})
	if err != nil {
		return err
	}
	st, err := leader.Client().Status(ctx)
	if err != nil {
		return fmt.Errorf("look at %s: %w", leader.Name, err)
	}
	p.say("kill -9 %d: %s, which leads; %d tasks have ended, %d run, %d wait", leader.PID(), leader.Name,
		p.witness.Ended(), st.Tasks["running"]+st.Tasks["assigned"], st.Tasks["pending"])
	at := time.Now()
	if err := leader.Kill(); err != nil {
		return err
	}
	p.killed = leader
	next, err := p.witness.After(ctx, at)
	if err != nil {
		return err
	}
	p.failover = next.Seen.Sub(at)
	p.say("the next leader committed a result %d ms after the kill", p.failover.Milliseconds())
	return nil
}

// finish waits until every task has ended.
func (p *play) finish(ctx context.Context) error {
	if err := p.until(ctx, func() bool { return p.witness.Ended() >= len(p.ids) }); err != nil {
		return err
	}
	// What ended in the moment of the kill may have gone past the witness: ask.
	return p.mesh.Running()[0].Client().Wait(ctx, p.ids, func(client.Verdict) {})
}

// until waits for done and shows meanwhile how far the tasks are.
func (p *play) until(ctx context.Context, done func() bool) error {
	shown := time.Now()
	return lab.Until(ctx, func() bool {
		if time.Since(shown) >= p.every() {
			p.progress("%d of %d tasks have ended", p.witness.Ended(), len(p.ids))
			shown = time.Now()
		}
		return done()
	})
}

// comeBack restarts the killed node and has it work again.
func (p *play) comeBack(ctx context.Context) error {
	p.say("all %d tasks have ended; %s starts again", len(p.ids), p.killed.Name)
	began := time.Now()
	if err := p.killed.Start(ctx); err != nil {
		return err
	}
	if err := p.mesh.Formed(ctx); err != nil {
		return err
	}
	if err := p.mesh.Settle(ctx); err != nil {
		return err
	}
	p.say("%s has caught up %d ms after its start", p.killed.Name, time.Since(began).Milliseconds())
	w := program("echo", "back")
	w.spec.Requirements.WorkerID = p.killed.Worker()
	ids, err := p.hand(ctx, p.mesh.Nodes[0], w)
	if err != nil {
		return err
	}
	if err := p.mesh.Nodes[0].Client().Wait(ctx, ids, func(client.Verdict) {}); err != nil {
		return err
	}
	p.say("%s has run a task again", p.killed.Name)
	return nil
}

// compare asks every node for its rows, by the real command line.
func (p *play) compare(ctx context.Context) error {
	if err := p.mesh.Settle(ctx); err != nil {
		return err
	}
	var errs []error
	for _, table := range lab.Tables() {
		query := "SELECT * FROM " + table + " ORDER BY ALL"
		var first []byte
		for i, n := range p.mesh.Nodes {
			rows, err := sql(ctx, n, query, "--format", "csv", "--max-rows", "1000000")
			if err != nil {
				return err
			}
			p.say("%s: labmesh sql %q: %d rows, SHA-256 %.8x…", n.Name, query, max(bytes.Count(rows, []byte("\n"))-1, 0), sha256.Sum256(rows))
			if i == 0 {
				first = rows
			} else if !bytes.Equal(first, rows) {
				errs = append(errs, fmt.Errorf("%s has other rows in %s than %s", n.Name, table, p.mesh.Nodes[0].Name))
			}
		}
	}
	table, err := sql(ctx, p.killed, "SELECT type, status, worker_id, count(*) AS tasks, max(attempts) AS attempts FROM distributed_tasks GROUP BY ALL ORDER BY ALL")
	p.plain("\n%s", table)
	return errors.Join(append(errs, err)...)
}

func sql(ctx context.Context, n *lab.Node, query string, flags ...string) ([]byte, error) {
	cmd := n.Command(ctx, append([]string{"sql", query}, flags...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("labmesh sql on %s: %w: %s", n.Name, err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// verdict checks every promise and shows the figures.
func (p *play) verdict(ctx context.Context) (err error) {
	var errs []error
	for _, n := range p.mesh.Nodes {
		if p.tally, err = n.Tally(ctx, p.ids, p.killed.Worker()); err != nil {
			return err
		}
		if !p.tally.OK() {
			errs = append(errs, fmt.Errorf("%s: %s", n.Name, p.tally))
		}
	}
	for _, id := range p.ids {
		d, err := p.mesh.Nodes[0].Client().Task(ctx, id)
		if err != nil {
			return err
		}
		if d.Status != p.want[id] {
			errs = append(errs, fmt.Errorf("%s (%s) is %s and should be %s: %s", id, d.Config, d.Status, p.want[id], d.Error))
		}
	}
	left, err := p.mesh.Attempts()
	if err != nil || len(left) > 0 {
		errs = append(errs, fmt.Errorf("processes were left behind: %v %w", left, err))
	}
	p.plain("kill -9 of the leader to the next result   %d ms", p.failover.Milliseconds())
	p.plain("tasks                                      %d", p.tally.Tasks)
	p.plain("lost                                       %d", p.tally.Lost)
	p.plain("with two results                           %d", p.tally.Twice)
	p.plain("restarted because the leader died          %d", p.tally.Restarted)
	p.plain("run again because their worker died        %d", p.tally.Rerun)
	p.plain("processes left behind                      %d", len(left))
	p.plain("")
	if len(errs) == 0 {
		p.say("it all held")
	}
	return errors.Join(errs...)
}

// showLogs shows the end of what every node logged.
func (p *play) showLogs() {
	const bytesShown = 2000
	for _, n := range p.mesh.Nodes {
		text := n.Log()
		p.plain("\n%s logged at last:\n%s", n.Name, text[max(0, len(text)-bytesShown):])
	}
}
