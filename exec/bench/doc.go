// Package bench runs benchmark tasks on this machine: it chooses the engine,
// launches its runner again and again, reads what that prints, and makes rows of it.
//
// A runner is a program that speaks the protocol of labmesh/bench. Whatever it does
// is survived: what it prints is bounded and checked (decode.go), silence ends it
// (launch.go), its whole process tree ends with it (exec/process). A batch size that
// does not fit, or at which the runner dies, gets a row that says so, and those after
// it are measured by a fresh process. Rows are recorded as they come, so what was
// measured outlives whatever comes after.
//
// # What a task comes to
//
// One launch of the runner is a run; a task has as many as its config has repeats,
// each measuring every batch size. A batch size that ran out of memory, or that the
// engine cannot do, is not tried again in later runs; one at which the runner
// crashed or fell silent is tried twice. A task completes when something was measured and
// each batch size either was, or is one that does not fit or is not supported: those
// are results. It fails when the runner failed at a batch size in every run, or when nothing
// was measured at all.
//
// # When the node restarts
//
// A benchmark does not outlive its node: with the node's restart something else ran on the
// machine, and nobody watched it. The attempt is lost with the worker and tried again; rows that
// it recorded stay on record under its number.
package bench
