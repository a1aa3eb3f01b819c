// Package exec runs attempts on this machine. A [Worker] looks at its [Desk]
// for the tasks that the mesh has given it, runs each as an [Attempt] through
// the [Runner] for its kind, and reports its start and its end. It knows
// nothing of the log: the Desk stands between.
//
// What it promises:
//
//   - An attempt is begun at most once on a machine, also across restarts: its
//     directory is made, exclusively, before anything of it runs.
//   - A report is repeated until the mesh has taken or declined it.
//   - An attempt that the mesh no longer wants is stopped; a running attempt that
//     the mesh believes in and this worker does not have is reported lost at once.
//   - The bundle of a task is in the work directory before its program starts, and
//     what the task wants kept is handed over before its end is reported.
//   - Output is kept on this disk, bounded, and can be followed while it comes.
//
// The rooms below it: exec/output keeps what attempts print, exec/process runs
// programs and ends whole process trees, exec/runner holds the runners for each
// kind of task, exec/cgroup holds attempts to limits and exec/sandbox shuts them
// in, exec/artifacts picks the files to keep, exec/probe finds out what the machine offers.
package exec
