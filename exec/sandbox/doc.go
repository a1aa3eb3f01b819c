// Package sandbox shuts programs in, on Linux, where the machine allows it.
//
// A program in a sandbox is started by way of two processes of our own. The
// outer one ([Main] as [Outer]) makes the namespaces, waits, and ends just as the
// program did: with its exit code, or by the signal that ended it. The inner one
// is the first process of the new process namespace: it brings up the loopback
// device, starts the program, reaps whatever is orphaned in there, and reports
// how the program ended. When either is killed the kernel kills all the rest.
//
// no_network is made of user, mount, process, IPC and network namespaces: the
// program is the same user and sees the same files, but has a loopback device
// only and sees no process but its own. bubblewrap has bwrap make the namespaces,
// and lets it see all files read-only but for its own directories.
//
// What a machine can make is tried for real, by [Probe].
package sandbox
