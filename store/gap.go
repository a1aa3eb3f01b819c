package store

import (
	"fmt"

	"labmesh"
)

// ExportRows is about how many rows a peer should ask for at a time.
const ExportRows = 50_000

// Exportable is how far a ledger that stands at applied and has gaps, oldest
// first, can export rows with a log index in (after, upto]. It refuses when it
// lacks the first of them. Backends call it.
func Exportable(after, upto, applied uint64, gaps []Gap) (uint64, error) {
	if upto <= after {
		return 0, labmesh.Refuse(labmesh.Invalid, "export rows: there are none after %d up to %d", after, upto)
	}
	if applied <= after {
		return 0, labmesh.Refuse(labmesh.Unavailable, "export rows after %d: this ledger has only reached %d; ask another node", after, applied)
	}
	upto = min(upto, applied)
	for _, g := range gaps {
		if g.Upto <= after {
			continue
		}
		if g.After <= after {
			return 0, labmesh.Refuse(labmesh.Unavailable, "export rows after %d: this ledger lacks those after %d up to %d itself; ask another node", after, g.After, g.Upto)
		}
		return min(upto, g.After), nil
	}
	return upto, nil
}

// Importable says what of a stream of rows up to next a ledger with gaps, oldest
// first, still lacks: those after from. done says that it lacks none of them.
// Backends call it, inside the transaction that imports.
func Importable(dec *Decoder, next uint64, gaps []Gap) (from uint64, done bool, err error) {
	if next != dec.Next {
		return 0, false, fmt.Errorf("import rows up to %d: the stream holds those up to %d", next, dec.Next)
	}
	if len(gaps) == 0 || next <= gaps[0].After {
		return 0, true, nil
	}
	g := gaps[0]
	if dec.After > g.After {
		return 0, false, fmt.Errorf("import rows after %d: those after %d are still missing", dec.After, g.After)
	}
	if next > g.Upto {
		return 0, false, fmt.Errorf("import rows up to %d: only those up to %d are missing", next, g.Upto)
	}
	return g.After, false, nil
}
