// Package mesh knows who is there and how to reach them. It is the only room
// that touches the network between nodes: a [Host] is this node's place on it.
//
//   - Admission is membership. Every stream that comes in or goes out, whether
//     ours, gossip's or the DHT's, passes one guard that asks [Config.Admit].
//     Strangers may speak one protocol, join, which proves an invite.
//   - Discovery is a loop that keeps connections to all [Config.Members]: from
//     the addresses it was given, the saved peer book, mDNS, other members and a
//     private DHT. No public node is ever contacted.
//   - Adverts are what nodes say of themselves, by gossip and face to face. The
//     [Roster] holds the last word of each node until its lease runs out.
//   - [Streams] are plain net.Conns between members, for whoever needs to talk.
//
// Gossip is a hint: it says who is there now. What the mesh decided is in the
// log, which this package does not know.
//
// Identify, the protocol by which libp2p hosts tell each other their addresses
// and protocols, is below the guard: a stranger who connects can read those.
package mesh
