package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// delegate has the cgroup of a pool in v2 use those controllers that are there.
// v2 lets a cgroup bound the cgroups below it only while no process is in it, so
// this process moves into one beside the pool where that is what is in the way.
func (p *Pool) delegate(t *tree) {
	base := filepath.Dir(t.dir)
	there, err := os.ReadFile(filepath.Join(base, "cgroup.controllers"))
	if err != nil {
		return
	}
	for _, c := range Controllers() {
		if !slices.Contains(strings.Fields(string(there)), c) {
			continue // it may be had from v1
		}
		if err := p.enable(t, base, c); err != nil {
			p.absent[c] = err.Error()
			continue
		}
		t.holds = append(t.holds, c)
		delete(p.absent, c)
	}
}

func (p *Pool) enable(t *tree, base, c string) error {
	on := setting{file: subtree, value: "+" + c}
	err := write(base, on)
	if errors.Is(err, syscall.EBUSY) && t.home == base {
		err = p.moveAgent(t, base, on)
	}
	if errors.Is(err, syscall.EBUSY) {
		return fmt.Errorf("the cgroup %s holds other processes than the node: start the node as a service of its own (with systemd: Delegate=yes, DelegateSubgroup=%s)", base, agentName)
	}
	if err == nil {
		err = write(t.dir, on)
	}
	return err
}

// moveAgent moves this process out of base and sets on there. It moves back
// where that does not help.
func (p *Pool) moveAgent(t *tree, base string, on setting) error {
	agent := filepath.Join(base, agentName)
	if err := p.cfg.mkdir(agent); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	self := setting{file: procsFile, value: "0"}
	if err := write(agent, self); err != nil {
		return err
	}
	if err := write(base, on); err != nil {
		_ = write(base, self)
		_ = os.Remove(agent) // unless another node is in it
		return err
	}
	t.home = agent
	return nil
}
