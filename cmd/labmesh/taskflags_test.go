package main

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"labmesh"
)

func TestLimitsAndSandboxComeFromFlags(t *testing.T) {
	t.Parallel()
	for words, want := range map[string]labmesh.Limits{
		"":                      {},
		"--memory-limit 1.5GiB": {MemoryGB: 1.5},
		"--disk-limit 512MiB":   {DiskGB: 0.5},
		"--cpu-limit 0.5":       {CPUs: 0.5},
		"--pids-limit 100":      {Pids: 100},
		"--memory-limit 4Gib --pids-limit 9 --cpu-limit 2 --disk-limit 1tib": {MemoryGB: 4, Pids: 9, CPUs: 2, DiskGB: 1024},
	} {
		var f taskFlags
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		f.bind(flags)
		if err := flags.Parse(append(strings.Fields(words), "--sandbox", "bubblewrap", "--tool", "pytest,limits")); err != nil {
			t.Fatal(err)
		}
		s, err := f.spec(labmesh.Custom, customConfig{Name: "true"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := labmesh.Limits{}
		if s.Limits != nil {
			got = *s.Limits
		}
		if got != want || (s.Limits == nil) != (want == labmesh.Limits{}) {
			t.Errorf("%q: %+v, want %+v", words, s.Limits, want)
		}
		if r := s.Requirements; r.Sandbox != labmesh.SandboxBubble || len(r.Tools) != 2 {
			t.Errorf("%q: %+v", words, r)
		}
	}
	for _, words := range []string{"--memory-limit much", "--disk-limit 0", "--sandbox chroot", "--pids-limit -1"} {
		var f taskFlags
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		f.bind(flags)
		if err := flags.Parse(strings.Fields(words)); err != nil {
			t.Fatal(err)
		}
		if _, err := f.spec(labmesh.Custom, customConfig{Name: "true"}, nil); err == nil {
			t.Errorf("%q was taken", words)
		}
	}
}
