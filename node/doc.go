// Package node is one node: its parts made, joined and run. [Node] opens them in
// order, runs them as levels of which the last to start is the first to stop,
// and closes them. What the parts need of one another meets here, and nowhere
// else: the siblings do not know each other.
package node
