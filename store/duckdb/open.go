// Package duckdb keeps a ledger in a DuckDB file. It is the only door to cgo.
//
// The file holds plain tables that the stock duckdb client reads when no node
// has the file open. Inside the node the file is attached under the name
// ledger; people's SQL is run on connections of its own, locked down as far as
// DuckDB allows, see Query.
package duckdb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	duck "github.com/duckdb/duckdb-go/v2"

	"labmesh"
	"labmesh/store"
)

// Limits on what DuckDB takes. Zero fields of a Config stand for them.
const (
	MemoryLimitMB = 160             // of DuckDB's buffers. It counts 512 KiB for each column that was appended to, which all tables together make 90 MiB; little of that is ever touched
	SpillLimitMB  = 1024            // of the files it puts beside the ledger when buffers run out
	Threads       = 1               // with more, whoever awaits a statement spins while another thread carries it out
	CheckTimeout  = 2 * time.Minute // for the check of a file before it is opened
	queriesMax    = 4               // statements of people run at the same time
)

// Config says where a ledger is and what it may take.
type Config struct {
	Path string // of the file; made if it is not there
	// Check tries a file before it is opened, in a process of its own: what is
	// wrong with a file can abort the process that opens it. It ends in
	// CheckFile. Nil skips the check.
	Check         func(ctx context.Context, path string) error
	Logger        *slog.Logger // required
	MemoryLimitMB int
	Threads       int

	keyed bool // with PRIMARY KEY on the large tables, for the measurement of what it costs
}

// DB is a ledger in a DuckDB file.
type DB struct {
	cfg     Config
	live    *liveTable
	queries chan struct{} // holds one token for each query that runs

	write  sync.Mutex   // held while writing
	state  sync.RWMutex // guards db and closed; held for reading while db is used
	db     *sql.DB
	closed bool
}

var _ store.Backend = (*DB)(nil)

// catalog is the name under which the file is attached.
const catalog = "ledger"

var errClosed = errors.New("the ledger is closed")

// Open opens the ledger at cfg.Path, or makes one. A file that is damaged is
// moved out of the way, to the path that aside names, and a fresh ledger takes
// its place: its rows come back from a peer. A file that another process uses,
// or that a newer labmesh wrote, is an error and stays as it is.
func Open(ctx context.Context, cfg Config) (db *DB, aside string, err error) {
	if strings.ContainsAny(cfg.Path, "?*") {
		return nil, "", labmesh.Refuse(labmesh.Invalid, "open ledger %s: DuckDB cannot keep a file whose path holds ? or *", cfg.Path)
	}
	if cfg.Path, err = filepath.Abs(cfg.Path); err != nil {
		return nil, "", fmt.Errorf("open ledger: %w", err)
	}
	if cfg.MemoryLimitMB <= 0 {
		cfg.MemoryLimitMB = MemoryLimitMB
	}
	if cfg.Threads <= 0 {
		cfg.Threads = Threads
	}
	if aside, err = checkOrSetAside(ctx, cfg); err != nil {
		return nil, "", err
	}
	db = &DB{cfg: cfg, live: newLiveTable(), queries: make(chan struct{}, queriesMax)}
	if db.db, err = db.attach(ctx); err != nil {
		return nil, aside, fmt.Errorf("open ledger %s: %w", cfg.Path, err)
	}
	return db, aside, nil
}

// attach makes a DuckDB instance that holds the file and nothing else.
func (db *DB) attach(ctx context.Context) (*sql.DB, error) {
	spill := db.cfg.Path + ".tmp"
	exports := db.exports()
	for _, dir := range []string{spill, exports} { // left over from a crash
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
	}
	var attached atomic.Bool // the first connection attaches the file
	connector, err := duck.NewConnector("", func(c driver.ExecerContext) error {
		if !attached.Load() {
			return nil
		}
		_, err := c.ExecContext(context.Background(), "USE "+catalog, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	sdb := sql.OpenDB(connector)
	sdb.SetMaxIdleConns(2)
	if err := db.setUp(ctx, sdb, spill, exports); err != nil {
		return nil, errors.Join(err, sdb.Close())
	}
	attached.Store(true)
	return sdb, nil
}

func (db *DB) exports() string { return db.cfg.Path + ".exports" }

func (db *DB) setUp(ctx context.Context, sdb *sql.DB, spill, exports string) error {
	conn, err := sdb.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	statements := []string{
		fmt.Sprintf("SET threads=%d", db.cfg.Threads),
		fmt.Sprintf("SET memory_limit='%dMB'", db.cfg.MemoryLimitMB),
		"SET temp_directory=" + quote(spill),
		fmt.Sprintf("SET max_temp_directory_size='%dMB'", SpillLimitMB),
		"SET autoinstall_known_extensions=false",
		"SET autoload_known_extensions=false",
		"SET allow_community_extensions=false",
		"SET TimeZone='UTC'",
		"ATTACH " + quote(db.cfg.Path) + " AS " + catalog,
		"USE " + catalog,
	}
	for _, s := range statements {
		if _, err := conn.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	if err := createTables(ctx, conn, db.cfg.keyed); err != nil {
		return err
	}
	if err := db.live.register(conn); err != nil {
		return err
	}
	for _, s := range []string{
		"SET allowed_directories=[" + quote(exports) + "]", // empty but while a Parquet file is made
		"SET enable_external_access=false",
		"SET lock_configuration=true",
	} {
		if _, err := conn.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// createTables makes what is not there, brings a ledger of an older format up to
// date, and refuses one of a newer.
func createTables(ctx context.Context, conn *sql.Conn, keyed bool) error {
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for _, s := range ddl(keyed) {
		if _, err := tx.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	var format int
	if err := tx.QueryRowContext(ctx, "SELECT format FROM ledger.main.ledger_meta").Scan(&format); err != nil {
		return err
	}
	if err := knownFormat(format); err != nil {
		return err
	}
	for _, t := range store.Tables() {
		if err := sameColumns(ctx, tx, t, format < store.Format); err != nil {
			return err
		}
	}
	if err := createReports(ctx, tx, format < store.Format); err != nil {
		return err
	}
	if format < store.Format {
		if _, err := tx.ExecContext(ctx, "UPDATE ledger.main.ledger_meta SET format = ?", store.Format); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// createReports makes the views that are not there; anew says that those there
// are of an older format.
func createReports(ctx context.Context, tx *sql.Tx, anew bool) error {
	create := "CREATE VIEW IF NOT EXISTS "
	if anew {
		create = "CREATE OR REPLACE VIEW "
	}
	for _, r := range reports() {
		if _, err := tx.ExecContext(ctx, create+catalog+".main."+r.name+" AS "+r.sql); err != nil {
			return fmt.Errorf("make the view %s: %w", r.name, err)
		}
	}
	return nil
}

// sameColumns says in what the table in the file differs from t. One of an older
// format first gets the columns that were added since.
func sameColumns(ctx context.Context, tx *sql.Tx, t *store.Table, older bool) error {
	got, err := columnsOf(ctx, tx, t)
	if err != nil {
		return err
	}
	var want []string
	for _, c := range t.Columns {
		want = append(want, c.Name+" "+c.Type.SQL())
	}
	if older && len(got) < len(want) && slices.Equal(got, want[:len(got)]) {
		for _, c := range want[len(got):] {
			if _, err := tx.ExecContext(ctx, "ALTER TABLE "+full(t)+" ADD COLUMN "+c); err != nil {
				return err
			}
		}
		return nil
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("table %s has columns %v, not %v", t.Name, got, want)
	}
	return nil
}

// columnsOf are the columns of the table in the file, with their types.
func columnsOf(ctx context.Context, tx *sql.Tx, t *store.Table) (got []string, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT column_name || ' ' || data_type FROM duckdb_columns()
		WHERE database_name = ? AND schema_name = 'main' AND table_name = ? ORDER BY column_index`, catalog, t.Name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var c string
		if err := rows.Scan(&c); err != nil {
			return nil, err
		}
		got = append(got, c)
	}
	return got, rows.Err()
}

func knownFormat(format int) error {
	if format > store.Format {
		return labmesh.Refuse(labmesh.Conflict, "the ledger has format %d and this labmesh knows %d: a newer labmesh wrote it; upgrade this node", format, store.Format)
	}
	return nil
}

// ddl makes the tables. The large ones have no PRIMARY KEY: the log makes their
// rows unique, and a key would cost half the speed (docs/decisions/002-ledger-keys.md).
func ddl(keyed bool) []string {
	statements := []string{
		"CREATE TABLE IF NOT EXISTS ledger.main.ledger_meta(format INTEGER, applied_index BIGINT)",
		fmt.Sprintf("INSERT INTO ledger.main.ledger_meta SELECT %d, 0 WHERE NOT EXISTS (FROM ledger.main.ledger_meta)", store.Format),
		"CREATE TABLE IF NOT EXISTS ledger.main.ledger_gaps(after_index BIGINT, upto_index BIGINT)",
	}
	for _, t := range store.Tables() {
		var cols []string
		for i, c := range t.Columns {
			col := ident(c.Name) + " " + c.Type.SQL()
			if i == 0 && (t.Replaced || keyed && t != &store.EventsTable) {
				col += " PRIMARY KEY"
			}
			cols = append(cols, col)
		}
		statements = append(statements, "CREATE TABLE IF NOT EXISTS "+full(t)+"("+strings.Join(cols, ", ")+")")
	}
	return statements
}

// full is the table's name wherever it is used.
func full(t *store.Table) string { return catalog + ".main." + t.Name }

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func ident(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// use lends the instance to a method. The caller calls release when it is done.
func (db *DB) use() (sdb *sql.DB, release func(), err error) {
	db.state.RLock()
	if db.closed {
		db.state.RUnlock()
		return nil, nil, errClosed
	}
	return db.db, db.state.RUnlock, nil
}

// Close waits for what is under way and closes the file.
func (db *DB) Close() error {
	db.state.Lock()
	defer db.state.Unlock()
	if db.closed {
		return nil
	}
	db.closed = true
	if db.db == nil {
		return nil
	}
	if err := db.db.Close(); err != nil {
		return fmt.Errorf("close ledger %s: %w", db.cfg.Path, err)
	}
	return nil
}
