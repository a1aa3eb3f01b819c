package cgroup

// Config says where a pool is and what it leaves to the node.
type Config struct {
	// Dir names the pool: the directory of the node's own that it is for. A later
	// life with the same Dir finds the same pool.
	Dir string
	// Keep names leaves of an earlier life that are still wanted: all others of it
	// are ended and removed. See [Pool.Adopt].
	Keep []string
	// MemoryBytes is the memory of the machine, or what this process may have of
	// it. All leaves together get it less a tenth, which stays with the node (256
	// MiB to 2 GiB). 0 means no such bound.
	MemoryBytes int64
	// CPUs is how many processors there are. On each the leaves together weigh
	// as much as one thread of the node. 0 means that all weigh the same.
	CPUs int

	proc  string                 // in place of /proc/self
	mkdir func(dir string) error // in place of os.Mkdir
}

// Entry is how a program comes into a leaf: whoever starts it does so with
// CLONE_INTO_CGROUP, from a thread that stands in the cgroups of v1. It is plain
// data, so that it can be handed to another process.
type Entry struct {
	Dir string // of v2, for CLONE_INTO_CGROUP; "" without v2
	// Base are files of v1 cgroups, the same for all leaves of a pool, to which the
	// thread that starts programs writes "0" once: it stays in them. It must not be
	// the first thread of its process, whose cgroup the memory of the process is of.
	Base []string
	// Tasks are those to which it writes before it starts this program, and Back
	// those to which it writes afterwards.
	Tasks, Back []string
}
