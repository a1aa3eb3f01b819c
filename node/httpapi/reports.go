package httpapi

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"labmesh"
	"labmesh/bench/plot"
	"labmesh/bench/report"
	"labmesh/stats"
)

// reportsMax is how many reports on benchmarks are made at the same time: they
// take processor time, which a benchmark on this machine would rather have.
const reportsMax = 1

// drawing draws a report.
type drawing func(io.Writer, plot.Format) error

func (a *API) benchSeries(w http.ResponseWriter, r *http.Request, _ Caller) error {
	return a.report(w, r, func(q url.Values, f report.Filter, ask report.Ask) (any, drawing, error) {
		set, err := report.CurvesIn(ask, f)
		return set, func(w io.Writer, form plot.Format) error {
			return plot.Curves(w, orAll(f.Model)+" over the batch size", set, form)
		}, err
	})
}

func (a *API) benchTrend(w http.ResponseWriter, r *http.Request, _ Caller) error {
	return a.report(w, r, func(q url.Values, f report.Filter, ask report.Ask) (any, drawing, error) {
		alpha, effect, err := thresholds(q)
		if err != nil {
			return nil, nil, err
		}
		trends, err := report.ChangesIn(ask, f, stats.TrendOptions{Alpha: alpha, Effect: effect})
		return trends, func(w io.Writer, form plot.Format) error {
			return plot.Trends(w, orAll(f.Model)+" over time", trends, form)
		}, err
	})
}

func (a *API) benchCompare(w http.ResponseWriter, r *http.Request, _ Caller) error {
	return a.report(w, r, func(q url.Values, f report.Filter, ask report.Ask) (any, drawing, error) {
		if q.Get("a") == "" {
			return nil, nil, labmesh.RefuseField("a", "a: it is missing; it is %s", report.SelectorHelp)
		}
		first, err := report.ParseSelector(q.Get("a"))
		if err != nil {
			return nil, nil, err
		}
		var second report.Selector
		if q.Get("b") != "" {
			if second, err = report.ParseSelector(q.Get("b")); err != nil {
				return nil, nil, err
			}
		}
		alpha, effect, err := thresholds(q)
		if err != nil {
			return nil, nil, err
		}
		rep, err := report.CompareIn(ask, f, first, second, stats.Options{Alpha: alpha, Effect: effect})
		if err != nil {
			return nil, nil, err
		}
		return rep, func(w io.Writer, form plot.Format) error {
			return plot.Curves(w, rep.A+" and "+rep.B, rep.Curves(), form)
		}, nil
	})
}

func orAll(model string) string {
	if model == "" {
		return "all models"
	}
	return report.Canonical(model)
}

// report answers with what makes of the ledger, as JSON or as a drawing.
func (a *API) report(w http.ResponseWriter, r *http.Request, makes func(url.Values, report.Filter, report.Ask) (any, drawing, error)) error {
	q := r.URL.Query()
	form, err := wantsDrawing(r)
	if err != nil {
		return err
	}
	f, err := reportFilter(q)
	if err != nil {
		return err
	}
	select {
	case a.reports <- struct{}{}:
		defer func() { <-a.reports }()
	case <-r.Context().Done():
		return r.Context().Err()
	}
	made, draw, err := makes(q, f, a.ask(r.Context()))
	switch {
	case err != nil:
		return err
	case form == "":
		return a.reply(w, r, made)
	}
	var b bytes.Buffer
	if err := draw(&b, form); err != nil {
		return err
	}
	w.Header().Set("Content-Type", form.MediaType())
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'") // an SVG that is opened by itself is a page
	_, _ = w.Write(b.Bytes())                                                                  // who has left is not told
	return nil
}

// ask runs a report's statements on the ledger.
func (a *API) ask(ctx context.Context) report.Ask {
	return func(sql string) ([]string, error) {
		res, err := a.svc.Query(ctx, Query{SQL: sql, MaxRows: report.RowsMax + 1})
		if err != nil {
			return nil, err
		}
		out := make([]string, len(res.Rows))
		for i, row := range res.Rows {
			if len(row) == 1 {
				out[i], _ = row[0].(string) // else it is "", which is no row: that is said
			}
		}
		return out, nil
	}
}

// wantsDrawing is the format of the drawing that r asks for, "" for JSON.
func wantsDrawing(r *http.Request) (plot.Format, error) {
	accept := r.Header.Get("Accept")
	switch f := r.URL.Query().Get("format"); f {
	case string(plot.SVG), string(plot.PNG):
		return plot.Format(f), nil
	case "json":
		return "", nil
	case "":
		for _, form := range []plot.Format{plot.SVG, plot.PNG} {
			if strings.Contains(accept, form.MediaType()) && !strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html") {
				return form, nil
			}
		}
		return "", nil
	default:
		return "", labmesh.RefuseField("format", "format: %.40q is not one of json, svg, png", f)
	}
}

// reportFilter reads the query parameters that choose rows.
func reportFilter(q url.Values) (f report.Filter, err error) {
	f = report.Filter{Model: q.Get("model"), Worker: q.Get("worker"), Engine: q.Get("engine"), Device: q.Get("device")}
	if b := q.Get("batch"); b != "" {
		if f.Batch, err = strconv.Atoi(b); err != nil || f.Batch < 1 {
			return f, labmesh.RefuseField("batch", "batch: %.40q is not a batch size", b)
		}
	}
	for _, where := range q["where"] {
		name, value, ok := strings.Cut(where, "=")
		if !ok || name == "" {
			return f, labmesh.RefuseField("where", "where: %.40q is not label=value", where)
		}
		if f.Where == nil {
			f.Where = map[string]string{}
		}
		f.Where[name] = value
	}
	if f.Since, err = report.ParseSince(q.Get("since"), time.Now().UTC()); err != nil {
		return f, err
	}
	return f, nil
}

// thresholds reads the query parameters of verdicts; 0 stands for the default.
func thresholds(q url.Values) (alpha, effect float64, err error) {
	for name, to := range map[string]*float64{"alpha": &alpha, "effect": &effect} {
		if text := q.Get(name); text != "" {
			if *to, err = strconv.ParseFloat(text, 64); err != nil {
				return 0, 0, labmesh.RefuseField(name, "%s: %.40q is not a number", name, text)
			}
		}
	}
	return alpha, effect, nil
}
