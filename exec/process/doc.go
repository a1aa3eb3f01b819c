// Package process runs programs for attempts, and ends them: the whole tree,
// with children that left the process group and the session, on a stop, after a
// normal exit, and after the agent itself was killed.
//
// On Linux each program runs in a cgroup of its own where one can be made (see
// exec/cgroup), which ends it whole. Elsewhere, and where none can be made, the process
// group is killed and then every process whose environment carries the
// attempt's token ([TokenVar]). A process that leaves the group and clears its
// environment escapes that second way; nothing escapes the first.
package process
