package cgroup

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

const (
	hybridMounts = `24 23 0:21 / /sys/fs/cgroup rw,relatime shared:5 - tmpfs tmpfs rw,mode=755
25 24 0:22 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:6 - cgroup cgroup rw,cpu,cpuacct
26 24 0:23 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
27 24 0:24 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
28 24 0:25 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`
	hybridOwn = `9:name=systemd:/
4:memory:/user/a b
2:cpu,cpuacct:/
0::/user.slice
`
)

func TestHierarchiesAreFoundWhereTheyAreMounted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		mounts, own string
		want        []string
	}{
		"both":                     {hybridMounts, hybridOwn, []string{"v2 /sys/fs/cgroup/unified/user.slice", "name=systemd /sys/fs/cgroup/systemd", "memory /sys/fs/cgroup/memory/user/a b", "cpu,cpuacct /sys/fs/cgroup/cpu,cpuacct"}},
		"only v2":                  {"30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/\n", []string{"v2 /sys/fs/cgroup"}},
		"a container's part":       {"30 1 0:26 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n", "0::/docker/x/y\n", []string{"v2 /sys/fs/cgroup/y"}},
		"not our part":             {"30 1 0:26 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n", "0::/docker/xy\n", nil},
		"outside of our namespace": {"30 1 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n", "0::/../z\n", nil},
		"a name with a space":      {"30 1 0:26 / /mnt/a\\040b rw - cgroup2 cgroup2 rw\n", "0::/\n", []string{"v2 /mnt/a b"}},
		"none":                     {"1 0 0:1 / / rw - ext4 /dev/sda rw\n", "", nil},
		"lines that make no sense": {"- \n 1 2\n\n", "::\n0:\nx\n0::x\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, h := range hierarchies(c.mounts, c.own) {
				kind := strings.Join(h.controllers, ",")
				if h.v2 {
					kind = "v2"
				}
				got = append(got, kind+" "+h.own)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}

func FuzzHierarchies(f *testing.F) {
	f.Add(hybridMounts, hybridOwn)
	f.Fuzz(func(t *testing.T, mounts, own string) {
		for _, h := range hierarchies(mounts, own) {
			if h.own == "" {
				t.Errorf("a hierarchy that is nowhere: %+v", h)
			}
		}
	})
}

func TestLimitsBecomeSettings(t *testing.T) {
	t.Parallel()
	all := Limits{CPUs: 1.5, Memory: 1 << 30, Pids: 7}
	for _, c := range []struct {
		v2   bool
		ctrl string
		lim  Limits
		want string
	}{
		{true, Memory, all, "memory.max=1073741824 memory.swap.max=0 memory.oom.group=1"},
		{true, Pids, all, "pids.max=7"},
		{true, CPU, all, "cpu.max=150000 100000"},
		{true, CPU, Limits{CPUs: 0.0001}, "cpu.max=1000 100000"},
		{true, CPU, Limits{}, "cpu.max=max 100000"},
		{false, Memory, all, "memory.limit_in_bytes=1073741824 memory.memsw.limit_in_bytes=1073741824"},
		{false, Memory, Limits{}, "memory.limit_in_bytes=-1 memory.memsw.limit_in_bytes=-1"},
		{false, Pids, Limits{}, "pids.max=max"},
		{false, CPU, all, "cpu.cfs_period_us=100000 cpu.cfs_quota_us=150000"},
	} {
		var got []string
		for _, s := range settings(c.v2, c.ctrl, c.lim) {
			got = append(got, s.file+"="+s.value)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%v %s: %q, want %q", c.v2, c.ctrl, got, c.want)
		}
	}
}

func TestWhatCannotBeHeldIsNamed(t *testing.T) {
	t.Parallel()
	rest, missing := Limits{CPUs: 1, Memory: 2, Pids: 3}.Without([]string{Pids})
	if want := (Limits{Pids: 3}); rest != want || !reflect.DeepEqual(missing, []string{Memory, CPU}) {
		t.Errorf("%+v without %q", rest, missing)
	}
}

func TestTheNodeKeepsAReserve(t *testing.T) {
	t.Parallel()
	for total, want := range map[int64]int64{0: 0, 256 << 20: 128 << 20, 1 << 30: 768 << 20, 10 << 30: 9 << 30, 100 << 30: 98 << 30} {
		if got := memoryFor(total); got != want {
			t.Errorf("of %d MiB tasks get %d, want %d", total>>20, got>>20, want>>20)
		}
	}
	if tasks, agent := weights(4); tasks >= agent || tasks != 400 {
		t.Errorf("tasks weigh %d, the node %d", tasks, agent)
	}
	if tasks, agent := weights(1000); tasks >= agent || agent > weightMax {
		t.Errorf("on a large machine tasks weigh %d, the node %d", tasks, agent)
	}
}
