// Package keeper runs the programs of attempts in a small process of its own,
// so that they outlive the agent. There is one keeper for each data dir.
//
// The agent asks for a program to be started and hears how it ended: one message
// each way. It reads the output itself, from pipes of which the keeper holds
// duplicates. When the agent goes, the keeper reads them into files; a new agent
// finds the programs by the attempt they belong to ([Client.Known]), takes up the
// pipes ([Client.Claim]) and learns how those ended that have. When no agent
// comes within a window, the keeper ends all it runs, whole trees: it is the
// subreaper of everything below it, so nothing gets out.
//
// The two talk over a unix socket in the data dir's directory of running
// programs, in packets ([message]), with open files beside them. A lock in the
// same place says whether a keeper lives. It runs on Linux only.
package keeper
