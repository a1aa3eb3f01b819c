// Package report reads benchmark results as people ask about them: whether B is
// slower than A ([Compare]), when a series changed ([FindChanges]), and how time
// grows with the batch size ([Curves]).
//
// It selects rows of the ledger ([Selector], [Filter]), puts like beside like, and
// leaves the judgement to package stats. It is pure: rows come in as arguments, and
// the SQL that fetches them ([Filter.SQL]) is text for whoever can run it.
package report
