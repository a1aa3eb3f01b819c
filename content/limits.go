package content

import "labmesh"

// What the format allows. A manifest beyond it is refused, whoever made it.
const (
	ChunkBytesMax    = 2 << 20                     // a chunk
	ManifestBytesMax = 8 << 20                     // an encoded manifest: about 100 GB of chunks of the usual size
	IndexBytesMax    = 256 << 20                   // the encoded list of files
	FilesLimit       = 4_000_000                   // entries of a tree
	NameBytesMax     = 255                         // one name of a path
	PathBytesMax     = 4095                        // a path, and the target of a link
	TextBytesMax     = 512 << 20                   // all paths and targets of a tree together, once unfolded
	LinksMax         = 100_000                     // symbolic links of a tree
	linkHopsMax      = 40                          // links that a path may lead through, as in Linux
	linkStepsMax     = 4096                        // names looked at to follow one link
	chunksMax        = ManifestBytesMax / chunkLen // chunks of a manifest
)

// Limits bound what one takes from others, or packs. Zero means the default.
type Limits struct {
	Files int   // entries: files, links and empty directories
	Bytes int64 // of all files together
}

// The default limits.
const (
	DefaultFiles = 1_000_000
	DefaultBytes = 20 << 30
)

// Or is l with defaults for what is zero.
func (l Limits) Or() Limits {
	if l.Files == 0 {
		l.Files = DefaultFiles
	}
	if l.Bytes == 0 {
		l.Bytes = DefaultBytes
	}
	return l
}

// Check refuses a manifest that declares more than l.
func (l Limits) Check(m *Manifest) error {
	l = l.Or()
	if m.Files > l.Files {
		return labmesh.Refuse(labmesh.TooLarge, "%d files are more than the %d allowed: leave some out with .labmeshignore", m.Files, l.Files)
	}
	if m.Bytes > l.Bytes {
		return labmesh.Refuse(labmesh.TooLarge, "%d bytes are more than the %d allowed: leave some files out with .labmeshignore", m.Bytes, l.Bytes)
	}
	return nil
}
