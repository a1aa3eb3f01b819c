// Package content has the words for bundles and artifacts: trees of files that
// are named for what is in them, and that go from peer to peer.
//
// A tree is a stream, the bytes of its files followed by a list of them, cut
// into chunks where its content says so. Its [Manifest] lists the chunks, and
// its id is the SHA-256 of the manifest: 64 lower-case hex digits. Equal trees
// have equal ids, and what two trees share is stored and sent once.
//
// The rooms:
//
//	content        ParseID(id string) (Hash, error)
//	               Manifest: ID() string, Encode() []byte, Size() int64; DecodeManifest([]byte) (*Manifest, error)
//	               File: Path, Kind, Size, Target, Offset; Regular() bool; Mode() fs.FileMode
//	               Limits{Files, Bytes}: zero means the default
//	content/pack   Dir(ctx, root string, Options{Paths, NoIgnore, Also, Refused, Limits}, Put) (*content.Manifest, error)
//	               Unpack(ctx, *content.Manifest, dir string, content.Limits, Get) error
//	               Index(ctx, *content.Manifest, Get) ([]content.File, error)
//	content/store  Open(dir string, Config{BytesMax, InUse}) (*Store, error)
//	               Pack(ctx, root string, pack.Options) (id string, *content.Manifest, error)
//	               Unpack(ctx, id, dir string, content.Limits) error
//	               List(ctx, id) ([]content.File, error)
//	               OpenFile(ctx, id, path string) (io.ReadCloser, content.File, error)
//	               Manifest(id) (*content.Manifest, error); PutManifest(ctx, *content.Manifest) (id string, error); Complete(id) bool
//	               Has(Hash) bool; Missing([]Hash) []Hash; Put(ctx, Hash, data) error; Get(Hash, buf) ([]byte, error)
//	               Pin(id) (release func(), error); Usage() (bytes, limit int64)
//	content/swarm  New(*store.Store, Streams, peers func() []labmesh.NodeID, *slog.Logger) *Swarm
//	               Run(ctx) error; Fetch(ctx, id string) error; Spread(ctx, id string, copies int) (int, error)
//
// Upload from a program that is no node: pack.Dir with a Put that collects some
// chunks, asks which of them are missing and sends those; then the manifest's
// bytes. A node takes them with Store.Put and, once all are there,
// DecodeManifest and Store.PutManifest.
package content
