// Package bench is what the parts of a benchmark agree on: the config of a
// benchmark task ([Config]), the models that are known by name ([Models]), and the
// protocol between whoever supervises a measurement and the runner that does it
// ([Spec] and [Event]).
//
// # Runner protocol, version 1
//
// A runner is a program. With the argument "run" it reads one [Spec] as JSON on
// its standard input, to the end of it, measures, and prints [Event] objects, one JSON
// object a line, on its standard output; whatever else it has to say goes to its
// standard error. SIGTERM asks it to finish the iteration under way, report, and
// exit with 0. Its exit code matters less than its events do.
//
//	hello         first: who it is and what it runs on
//	model         the model is made: its parameters are counted, its precision is what it will be
//	batch_start   for each batch size in turn
//	warmup        what came before the measurement
//	samples       raw times, as they come: at most 256, and no oftener than every 250 ms
//	batch_end     how the batch size ended, with what it took
//	fatal         nothing more can be measured in this process
//	done          last
//
// With the argument "probe" it reads no more than {"v":1} and prints one hello
// whose devices have each run a small kernel.
//
// A runner sends raw times and computes no statistics of them: that is done once,
// for all engines, by whoever reads.
//
// The room is pure.
package bench
