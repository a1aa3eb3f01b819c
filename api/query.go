package api

// QueryRequest is the body of POST /api/query: one read-only statement.
type QueryRequest struct {
	SQL            string  `json:"sql"`
	TimeoutSeconds float64 `json:"timeout_seconds,omitempty"` // 0 for the node's default
	MaxRows        int     `json:"max_rows,omitempty"`        // 0 for the node's default
}

// QueryReply is the reply to POST /api/query. A client that must not lose
// digits of a BIGINT decodes it with [encoding/json.Decoder.UseNumber].
type QueryReply struct {
	Columns   []string `json:"columns"`
	Types     []string `json:"types"`
	Rows      [][]any  `json:"rows"`
	Truncated bool     `json:"truncated"` // there were more rows than asked for
	Index     uint64   `json:"log_index"` // the log index that the ledger had reached
}

// ParquetType is the media type to Accept for a Parquet file in place of a
// [QueryReply]; the query parameter format=parquet asks for the same.
const ParquetType = "application/vnd.apache.parquet"
