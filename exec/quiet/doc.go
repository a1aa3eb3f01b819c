// Package quiet tells how quiet a machine is, from outside of what is measured:
// [Machine.Wait] waits, within a bound, until nothing else uses the device of a
// benchmark, [Machine.Watch] looks on while it is measured and says what makes the
// result doubtful, with the energy it took, and [Machine.Env] is the fingerprint of
// the machine that goes with the result.
//
// Facts are read from /proc and /sys (facts.go), and of GPUs by a process outside
// (see [Config]); what is decided is decided by functions of two snapshots of
// them (judge.go). What a machine does not show is unknown, and speaks against
// nothing.
package quiet
