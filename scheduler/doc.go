// Package scheduler decides what should happen next: which pending task goes to
// which worker, who is lost, what is overdue. It is pure: a view and what is
// heard go in, commands come out. It starts no goroutine and reads no clock.
//
// A plan may be made on an old view. That does no harm: the state re-checks
// every command when it is applied, and refuses what no longer holds.
//
// Costs: Plan is O(free workers × classes + placed·log), whatever the number of
// pending tasks; Tend is O(workers + overdue).
package scheduler
