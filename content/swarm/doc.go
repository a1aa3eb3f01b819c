// Package swarm brings trees from peer to peer.
//
// Who fetches a tree opens a stream to every node it can, some of which have
// the tree, some a part of it, and some fetch it as well. Each tells, at once
// and then as it changes, which chunks it has and which are on their way, to it
// or from it to others. Who fetches asks each node for chunks that are rarest,
// by that word, and passes on what it has while the rest still comes. So a
// source that many fetch from at the same time uploads each chunk about once,
// and may leave when all of it is somewhere.
//
// Every chunk is checked against its hash. A node that sends wrong bytes is not
// asked again; one that is slow holds up nothing, for the last chunks are asked
// of two.
//
// A stream has one request and its answers:
//
//	M  the manifest of a tree
//	C  its chunks: the fetcher says want, cancel and bad, the server maps, news, chunk and gone
//	P  please fetch this tree: working, and in the end done or refused
//
// Begin reading at fetch.go (who fetches), book.go (whom to ask for what),
// serve.go (who is asked) and tree.go (what the two share).
package swarm
