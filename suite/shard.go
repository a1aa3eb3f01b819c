package suite

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
)

// shardsMax bounds --shards.
const shardsMax = 10_000

// Shards is what --shards says: how many chunks may be under way, or which part
// of the suite to run.
type Shards struct {
	Parallel int // 0 for as many as there are slots
	Part     int // from 1; 0 for all
	Parts    int
}

// ParseShards reads N, or I/N.
func ParseShards(s string) (Shards, error) {
	wrong := fmt.Errorf("%q is neither a number of chunks at the same time, such as 8, nor a part of the suite, such as 2/5", s)
	if s == "" {
		return Shards{}, nil
	}
	part, parts, isPart := strings.Cut(s, "/")
	a, err := strconv.Atoi(part)
	if err != nil || a < 1 || a > shardsMax {
		return Shards{}, wrong
	}
	if !isPart {
		return Shards{Parallel: a}, nil
	}
	n, err := strconv.Atoi(parts)
	if err != nil || n < a || n > shardsMax {
		return Shards{}, wrong
	}
	return Shards{Part: a, Parts: n}, nil
}

// Pick is the part of the cases that s asks for. The parts of a suite have
// nothing in common, are about equal in number and depend on nothing but the ids, so that
// machines that know nothing of each other run all of it between them.
func (s Shards) Pick(cases []Case) []Case {
	if s.Part == 0 {
		return cases
	}
	type ranked struct {
		c    Case
		hash uint64
	}
	all := make([]ranked, len(cases))
	for i, c := range cases {
		h := fnv.New64a()
		h.Write([]byte(c.ID)) // it cannot fail
		all[i] = ranked{c, h.Sum64()}
	}
	byHash := make([]int, len(all))
	for i := range byHash {
		byHash[i] = i
	}
	slices.SortFunc(byHash, func(a, b int) int {
		switch {
		case all[a].hash != all[b].hash && all[a].hash < all[b].hash:
			return -1
		case all[a].hash != all[b].hash:
			return 1
		}
		return strings.Compare(all[a].c.ID, all[b].c.ID)
	})
	mine := make([]bool, len(all))
	for place, i := range byHash {
		mine[i] = place%s.Parts == s.Part-1
	}
	var out []Case
	for i := range all {
		if mine[i] {
			out = append(out, all[i].c)
		}
	}
	return out
}
