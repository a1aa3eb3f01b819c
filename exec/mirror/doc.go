// Package mirror copies what attempts print to a second node while they print
// it, so that the last words of an attempt outlive its machine.
//
// A [Sender] runs where attempts do. It reads each attempt's output from where
// package output keeps it and writes it to a [Keeper] on another node, over one
// stream for each pair of nodes. It holds no output itself: a keeper that is slow
// costs what was overwritten meanwhile, never memory and never the attempt's
// speed; the hole is marked as any other. When a keeper goes, another is chosen,
// and given all that is still kept.
//
// What the keeper has it keeps in the form of package output, under the same
// limits, for as long as attempts are kept. Both sides count bytes by their offset in the
// stream, so that sending twice does no harm.
package mirror
