package httpapi

import (
	"net/http"
	"strings"
	"time"

	"labmesh"
	"labmesh/api"
)

func (a *API) query(w http.ResponseWriter, r *http.Request, _ Caller) error {
	parquet, err := wantsParquet(r)
	if err != nil {
		return err
	}
	body, err := readBody(w, r, a.limits.BodyBytes)
	if err != nil {
		return err
	}
	var req api.QueryRequest
	if err := decodeStrict(body, &req); err != nil {
		return err
	}
	if err := checkQuery(&req); err != nil {
		return err
	}
	q := Query{SQL: req.SQL, Timeout: time.Duration(req.TimeoutSeconds * float64(time.Second)), MaxRows: req.MaxRows}
	if parquet {
		return a.queryParquet(w, r, q)
	}
	res, err := a.svc.Query(r.Context(), q)
	if err != nil {
		return err
	}
	rows := orNone(res.Rows)
	for i := range rows {
		rows[i] = orNone(rows[i])
	}
	return a.reply(w, r, api.QueryReply{
		Columns: orNone(res.Columns), Types: orNone(res.Types), Rows: rows, Truncated: res.Truncated, Index: res.Index,
	})
}

func checkQuery(req *api.QueryRequest) error {
	switch {
	case strings.TrimSpace(req.SQL) == "":
		return labmesh.RefuseField("sql", "Missing required field: sql")
	case len(req.SQL) > api.SQLBytesMax:
		return labmesh.Refuse(labmesh.TooLarge, "sql: it has %d bytes; at most %d are allowed", len(req.SQL), api.SQLBytesMax)
	case !(req.TimeoutSeconds >= 0 && req.TimeoutSeconds <= api.QueryTimeoutMax.Seconds()):
		return labmesh.RefuseField("timeout_seconds", "timeout_seconds: %g is not in 0 to %g", req.TimeoutSeconds, api.QueryTimeoutMax.Seconds())
	case req.MaxRows < 0 || req.MaxRows > api.QueryRowsMax:
		return labmesh.RefuseField("max_rows", "max_rows: %d is not in 0 to %d", req.MaxRows, api.QueryRowsMax)
	}
	return nil
}

func wantsParquet(r *http.Request) (bool, error) {
	switch f := r.URL.Query().Get("format"); f {
	case "parquet":
		return true, nil
	case "json":
		return false, nil
	case "":
		return strings.Contains(r.Header.Get("Accept"), api.ParquetType), nil
	default:
		return false, labmesh.RefuseField("format", "format: %.40q is not one of json, parquet", f)
	}
}

// queryParquet sends a result as a file. An error before its first byte is a
// reply like any other; one after it cuts the connection.
func (a *API) queryParquet(w http.ResponseWriter, r *http.Request, q Query) error {
	f := &fileWriter{w: w}
	err := a.svc.QueryParquet(r.Context(), q, f)
	switch {
	case err == nil:
		f.begin()
		return nil
	case !f.begun:
		return err
	}
	a.log.WarnContext(r.Context(), "parquet reply broke off", "request_id", requestID(w), "err", err)
	panic(http.ErrAbortHandler)
}

// fileWriter sends the headers of a Parquet file with its first byte.
type fileWriter struct {
	w     http.ResponseWriter
	begun bool
}

func (f *fileWriter) begin() {
	if f.begun {
		return
	}
	f.begun = true
	h := f.w.Header()
	h.Set("Content-Type", api.ParquetType)
	h.Set("Content-Disposition", `attachment; filename="query.parquet"`)
	f.w.WriteHeader(http.StatusOK)
}

func (f *fileWriter) Write(p []byte) (int, error) {
	f.begin()
	return f.w.Write(p)
}
