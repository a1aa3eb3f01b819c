// Package engines finds the engines that run benchmarks on this machine: PyTorch
// and ONNX Runtime of whichever interpreter has them, and the one built in.
//
// An engine is there when its runner, asked to probe, ran a small kernel on some
// device. It is asked in a process of its own, with a limit on its time, because
// to import a broken installation may hang, kill the process, or print anything. To ask takes
// seconds, so answers are remembered, in a file too, until something changed that they depend on.
package engines
