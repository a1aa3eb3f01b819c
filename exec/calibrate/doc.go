// Package calibrate measures how fast a machine is, for two uses: the scheduler
// prefers the faster of workers that are equally free, and a machine that has become
// slower than it was is named.
//
// [Measure] takes ten to fifteen seconds. It belongs in a process of its own, which can be
// ended at once when there is work, gives its memory back, and takes no processor from the node:
// [Child] starts one, [Main] is what it does. [Book] keeps what was measured
// before and says whether a machine is slower than itself.
package calibrate
