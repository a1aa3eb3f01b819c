// Package leaf is how a node without a copy of the log takes part in the mesh: over
// one stream to any replica. The leaf says who its worker is and the newest log
// index that it has seen; the replica, once its own view has got as far, tells it what that worker
// holds, all of it at first and then what changes, and proposes what the leaf has to say.
//
// [Desk] is the leaf's end. It moves on to another replica when its own falls
// silent or has no leader, and never goes backward: a replica that is behind what was seen
// is not believed. [Server] is the replica's end, one for all leaves that came to it.
package leaf
