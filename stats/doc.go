// Package stats makes numbers of benchmarks that one can believe: what the times
// of one process run say ([Timing], [Stability]), whether two sets of runs differ
// ([CompareRuns], [ComparePairs]), and when a series changed ([ChangePoints]).
//
// Iterations within a process are not independent: two runs of the same program
// differ more than their iterations do, and a test on iterations calls more than
// half of all pairs of identical runs different. So the unit of every test is
// the process run, represented by its median.
//
// The room is pure. Where chance is needed its seed is fixed: equal numbers
// give equal answers, on every node and every day.
package stats
