// Package cgroup gives each attempt a cgroup of its own, on Linux, where the
// machine allows it: a [Leaf] of a [Pool]. Nothing that was started in a leaf
// can leave it by forking twice, by a session of its own or by clearing its
// environment; so the leaf says whether anything of the attempt is left, ends
// all of it, bounds what it takes, and knows whether memory ran out in it.
//
// Both versions are used, and together where a machine has both: v2 finds and
// ends processes wherever it is mounted (cgroup.kill), and bounds them where it
// has the controllers; what it lacks is had from the hierarchies of v1. Without
// v2 the freezer of v1 holds a tree still while it is killed.
//
// All leaves of a pool lie below one cgroup, which leaves a reserve of the
// machine to the node: see [Config].
//
// A program comes into its leaf by being started there: see [Entry].
package cgroup
