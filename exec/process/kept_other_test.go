//go:build !linux

package process_test

// keptAgent is of Linux.
func keptAgent(string) { panic("there is no keeper here") }

// leasedAgent is of Linux.
func leasedAgent(string, bool) { panic("there is no keeper here") }
