// Package suite runs chunks of test suites on this machine: the worker's side of
// `labmesh test`. A chunk either collects the cases of a suite or runs some of
// them, and each case is recorded as soon as it has ended.
//
// # How a case is named although its interpreter died
//
// What happens in an interpreter is written, line by line, to a file in the
// attempt's directory: by a plugin in pytest, by a script of ours around
// unittest, by `go test -json`. A case that began and did not end when the
// interpreter did is the one that crashed it. The rest of the chunk goes on in a
// fresh interpreter.
//
// # After a restart of the worker
//
// All decisions follow from the lines in the files, also that a case ran past its
// timeout: the supervisor writes that there before it kills. So a worker that
// takes up an attempt again reads the files from their beginning, comes to where
// it was, and records the same cases in the same order.
//
// # Before there is a slot
//
// [Begin] starts the interpreter of a chunk that waits for one. It loads the
// framework with what plugins are installed, and goes on to what is the suite's
// own when a file is made: [Run]'s part, once there is a slot.
package suite
