package report

import (
	"labmesh"
	"labmesh/stats"
)

// Ask runs a statement on the ledger that gives one column of texts.
type Ask func(sql string) ([]string, error)

// Load is the rows that f chooses, the oldest first. truncated says that there
// are more, older ones.
func (f Filter) Load(ask Ask) (rows []Row, truncated bool, err error) {
	results, err := ask(f.SQL())
	if err != nil {
		return nil, false, err
	}
	rows, truncated, err = Decode(results)
	return f.Keep(rows), truncated, err
}

// CompareIn compares two sides in the ledger. Where nothing is chosen, the refusal says
// what there is.
func CompareIn(ask Ask, f Filter, a, b Selector, opt stats.Options) (*Comparisons, error) {
	if err := asked(opt.Alpha, opt.Effect); err != nil {
		return nil, err
	}
	f.Sides = []Selector{a}
	if len(b.terms) > 0 {
		f.Sides = append(f.Sides, b)
	}
	rows, truncated, err := f.Load(ask)
	if err != nil {
		return nil, err
	}
	out, err := Compare(rows, a, b, opt)
	if labmesh.ReasonOf(err) == labmesh.NotFound {
		f.Sides = nil
		if rows, truncated, err = f.Load(ask); err != nil {
			return nil, err
		}
		out, err = Compare(rows, a, b, opt)
	}
	if err != nil {
		return nil, err
	}
	out.Truncated = truncated
	return out, nil
}

// ChangesIn finds the changes of the series in the ledger that f chooses.
func ChangesIn(ask Ask, f Filter, opt stats.TrendOptions) (*Trends, error) {
	rows, truncated, err := f.some(ask)
	if err != nil {
		return nil, err
	}
	out, err := FindChanges(rows, opt)
	if err != nil {
		return nil, err
	}
	out.Truncated = out.Truncated || truncated
	return out, nil
}

// CurvesIn is how time grows with the batch size, as the ledger has it.
func CurvesIn(ask Ask, f Filter) (*CurveSet, error) {
	rows, truncated, err := f.some(ask)
	if err != nil {
		return nil, err
	}
	out := Curves(rows)
	out.Truncated = out.Truncated || truncated
	return out, nil
}

// some is the rows that f chooses, or a refusal that says what there is.
func (f Filter) some(ask Ask) ([]Row, bool, error) {
	rows, truncated, err := f.Load(ask)
	if err != nil || len(rows) > 0 {
		return rows, truncated, err
	}
	rows, _, err = Filter{}.Load(ask)
	if err != nil {
		return nil, false, err
	}
	return nil, false, labmesh.Refuse(labmesh.NotFound, "no benchmark results fit%s%s", f.describe(), inventory(rows))
}
