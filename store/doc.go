// Package store is the ledger: everything that happened in the mesh, for people
// and for SQL. Every replica keeps one, written from the events that applying
// the log yields, so all ledgers hold the same rows.
//
// The ledger is append-only. A row is written once, when it is final: a task
// when it has its verdict, an attempt when it has ended, an event as it comes.
// Only worker_nodes is kept up to date by replacing. What is still live is in
// the node's state; a query is shown both, see [LiveRows].
//
// The ledger follows the log and nothing that decides asks it. [Behind] writes
// it behind the log: a bounded queue, one transaction a batch, rows and applied
// index together, so that replaying after a crash does nothing twice. A replica
// that got a snapshot instead of entries has a [Gap] in its ledger and fills it
// from a peer with Export and Import.
//
// The backends are store/duckdb, which nodes use, and store/memory, for tests.
// store/storetest says what each must hold.
package store
