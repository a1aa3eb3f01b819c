package consensus

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

// The log on disk verifies only the batch that was written last, as it is opened.
// So each entry carries a checksum of its own, in the field that raft leaves to
// those who store it. Entries without one were written before there were any.

// checksumMark opens the extensions of an entry with a checksum.
const checksumMark = 0xc5

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(l *raft.Log) []byte {
	var head [17]byte
	binary.BigEndian.PutUint64(head[:], l.Index)
	binary.BigEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	sum := crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, l.Data)
	return binary.BigEndian.AppendUint32([]byte{checksumMark}, sum)
}

// sign is l with a checksum. l itself stays as it is: others hold it.
func sign(l *raft.Log) *raft.Log {
	signed := *l
	signed.Extensions = checksum(l)
	return &signed
}

// verify holds an entry against its checksum, and takes that off.
func verify(l *raft.Log) bool {
	given := l.Extensions
	l.Extensions = nil
	return len(given) == 0 || string(given) == string(checksum(l))
}

// damageError says what on disk is not as it was written.
type damageError struct{ what string }

func (e *damageError) Error() string {
	return e.what + ": the disk has changed it. If other nodes have the log, ban this one (labmesh ban, on another node), empty its data dir, and let it join anew; " +
		"a mesh of one comes back from a backup (labmesh restore)"
}
