package duckdb

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"labmesh"
	"labmesh/store"
)

// expandMax bounds how much larger the functions of expanding may make values,
// all of a statement's together: they run in one go, where neither the timeout
// nor the memory limit reaches them.
const expandMax = 1_000_000

// verbs are the words a statement may begin with.
var verbs = []string{"select", "with", "from", "values", "table", "describe", "desc", "show", "summarize", "explain", "pivot", "unpivot", "("}

// refused are functions that look outside the ledger, change something, or run
// SQL that this check has not seen. Names that begin with one of
// refusedPrefixes are refused too.
var refused = []string{
	"getenv", "glob", "query", "query_table", "nextval", "setval", "write_log", "sniff_csv", "which_secret",
	"duckdb_secrets", "duckdb_logs", "checkpoint", "force_checkpoint", "enable_logging", "disable_logging",
	"enable_profiling", "disable_profiling", "truncate_duckdb_logs", "set_config", "add_parquet_key",
	"json_execute_serialized_sql", "from_substrait", "from_substrait_json", "seq_scan", "arrow_scan",
	"arrow_scan_dumb", "pandas_scan", "python_map_function", "test_all_types", "test_vector_types", "sleep_ms",
	"create_sort_key", "import_database", "export_database",
}

var refusedPrefixes = []string{"read_", "parquet_", "pragma_storage", "load_", "http_", "dbgen", "dsdgen"}

// expanding are functions that make large values of small ones. Their numbers
// must be written out in the statement.
var expanding = []string{"repeat", "lpad", "rpad", "range", "generate_series", "list_resize", "array_resize", "printf", "format"}

// checkSQL refuses a statement that is not one to read the ledger with. It sees
// words only; DuckDB then says whether it is a statement at all, and whether
// it is one that reads.
func checkSQL(sql string) error {
	if len(sql) > store.SQLBytesMax {
		return labmesh.Refuse(labmesh.TooLarge, "query: the statement has %d bytes, %d are allowed", len(sql), store.SQLBytesMax)
	}
	if strings.ContainsRune(sql, 0) {
		return labmesh.Refuse(labmesh.Invalid, "query: the statement holds a zero byte")
	}
	words := scan(strings.Map(space, sql))
	if len(words) == 0 {
		return labmesh.Refuse(labmesh.Invalid, "query: there is no statement")
	}
	if !slices.Contains(verbs, words[0].text) || words[0].kind == literal {
		return labmesh.Refuse(labmesh.Invalid, "query: only statements that read may be run: SELECT, WITH, FROM, VALUES, TABLE, DESCRIBE, SHOW, SUMMARIZE, EXPLAIN")
	}
	if words[0].text == "explain" && (len(words) < 2 || !slices.Contains(verbs[:5], words[1].text)) {
		return labmesh.Refuse(labmesh.Invalid, "query: EXPLAIN is allowed for SELECT, WITH, FROM, VALUES and TABLE, and without ANALYZE")
	}
	return checkCalls(words)
}

// space makes a blank of everything that DuckDB takes for one.
func space(r rune) rune {
	if r >= 0x80 && (unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) || r >= 0x2000 && r <= 0x206f) {
		return ' '
	}
	return r
}

// checkCalls looks at each word that is followed by a parenthesis.
func checkCalls(words []word) error {
	growth := 1.0
	for i, w := range words {
		if w.kind == literal || i+1 >= len(words) || words[i+1].text != "(" || words[i+1].kind != symbol {
			continue
		}
		if slices.Contains(refused, w.text) || slices.ContainsFunc(refusedPrefixes, func(p string) bool { return strings.HasPrefix(w.text, p) }) {
			return labmesh.Refuse(labmesh.Invalid, "query: %s may not be used here: SQL sees the ledger and nothing else", w.text)
		}
		if !slices.Contains(expanding, w.text) || isTable(words, i) {
			continue
		}
		n, ok := growthOf(w.text, words[i+1:])
		if growth *= max(n, 1); !ok || growth > expandMax {
			return labmesh.Refuse(labmesh.Invalid, "query: %s needs its sizes written as numbers, with a product of at most %d in the whole statement (for bars there is the function bar)", w.text, expandMax)
		}
	}
	return nil
}

// isTable reports whether the call at words[i] stands where a table stands:
// there range and generate_series yield row after row.
func isTable(words []word, i int) bool {
	if i == 0 || (words[i].text != "range" && words[i].text != "generate_series") {
		return false
	}
	switch words[i-1].text {
	case "from", "join", "lateral":
		return words[i-1].kind == name
	}
	return false
}

// growthOf is how much larger the call whose parentheses begin words makes its
// first argument, or how many elements it makes of none, and whether that can be
// told from the statement.
func growthOf(function string, words []word) (float64, bool) {
	args := arguments(words)
	switch function {
	case "printf", "format":
		return formatSize(args[0])
	case "range", "generate_series": // all are numbers
	default:
		if len(args) > 1 { // else it is written as a method: 'x'.repeat(3)
			args = args[1:]
		}
	}
	most, found := 0.0, false
	for _, arg := range args {
		n, isNumber, ok := plainNumber(arg)
		if !ok {
			return 0, false
		}
		most, found = math.Max(most, n), found || isNumber
	}
	return most, found
}

// arguments are the words of each argument of a call.
func arguments(words []word) [][]word {
	args, depth := [][]word{nil}, 0
	for _, w := range words {
		if w.kind == symbol {
			switch w.text {
			case "(", "[", "{":
				if depth++; depth == 1 {
					continue
				}
			case ")", "]", "}":
				if depth--; depth == 0 {
					return args
				}
			case ",":
				if depth == 1 {
					args = append(args, nil)
					continue
				}
			}
		}
		args[len(args)-1] = append(args[len(args)-1], w)
	}
	return args
}

// plainNumber is the size of an argument that is one number or one text.
func plainNumber(arg []word) (n float64, isNumber, ok bool) {
	if len(arg) == 2 && arg[0].kind == symbol && arg[0].text == "-" {
		arg = arg[1:]
	}
	if len(arg) != 1 {
		return 0, false, false
	}
	if arg[0].kind == literal {
		n, err := strconv.ParseFloat(strings.TrimSpace(arg[0].text), 64) // '1000' is a number to DuckDB
		return math.Abs(n), err == nil, true
	}
	n, err := strconv.ParseFloat(arg[0].text, 64)
	return n, true, arg[0].kind == number && err == nil
}

// formatSize is the largest number in a format that is written out.
func formatSize(format []word) (float64, bool) {
	if len(format) != 1 || format[0].kind != literal || strings.Contains(format[0].text, "*") {
		return 0, false
	}
	most := 0.0
	for _, digits := range strings.FieldsFunc(format[0].text, func(r rune) bool { return r < '0' || r > '9' }) {
		n, err := strconv.ParseFloat(digits, 64)
		if err != nil {
			return 0, false
		}
		most = math.Max(most, n)
	}
	return most, true
}
