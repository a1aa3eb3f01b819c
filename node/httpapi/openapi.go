package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"labmesh"
	"labmesh/api"
	"labmesh/bench/plot"
)

const schemaPrefix = "#/components/schemas/"

// document describes routes by OpenAPI 3.1.
func document(routes []route, version string) ([]byte, error) {
	reg := huma.NewMapRegistry(schemaPrefix, huma.DefaultSchemaNamer)
	reg.RegisterTypeAlias(reflect.TypeFor[api.Time](), reflect.TypeFor[*time.Time]()) // pointers: they may be null
	reg.RegisterTypeAlias(reflect.TypeFor[api.Text](), reflect.TypeFor[*string]())
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "labmesh", Version: version,
			Description: "One node of a labmesh, speaking for the whole mesh: every node answers the same.",
			License:     &huma.License{Name: "MIT"},
		},
		Paths: map[string]*huma.PathItem{},
		Components: &huma.Components{Schemas: reg, SecuritySchemes: map[string]*huma.SecurityScheme{
			"key":    {Type: "apiKey", In: "header", Name: "X-API-Key"},
			"bearer": {Type: "http", Scheme: "bearer"},
		}},
	}
	for i := range routes {
		doc.AddOperation(operation(&routes[i], reg))
	}
	loosen(reg, routes)
	data, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encode the OpenAPI document: %w", err)
	}
	return data, nil
}

func operation(rt *route, reg huma.Registry) *huma.Operation {
	op := &huma.Operation{
		Method: rt.method, Path: strings.ReplaceAll(rt.path, "...}", "}"), Summary: rt.summary, OperationID: operationID(rt),
		Parameters: parameters(rt, reg), Responses: responses(rt, reg),
	}
	if rt.may != open {
		op.Description = "Roles: " + rt.may.String() + "."
		if rt.own {
			op.Description += " A submitter sees what is of its project, a worker itself."
		}
		if rt.byKey {
			op.Description += " It takes the API key itself, no token."
		}
		op.Security = []map[string][]string{{"key": {}}, {"bearer": {}}}
	}
	if rt.in != nil {
		op.RequestBody = &huma.RequestBody{
			Required: rt.method != http.MethodGet && len(required(rt, reg)) > 0,
			Content:  content("application/json", rt.in, reg),
		}
	}
	if rt.inMedia != "" {
		op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			rt.inMedia: {Schema: &huma.Schema{Type: "string", Format: "binary"}}}}
	}
	return op
}

// required are the fields that the body of rt must have.
func required(rt *route, reg huma.Registry) []string {
	return reg.Schema(reflect.TypeOf(rt.in), false, "").Required
}

// operationID is the method and the path as one word.
func operationID(rt *route) string {
	id := strings.ToLower(rt.method)
	for part := range strings.FieldsFuncSeq(rt.path, func(r rune) bool { return strings.ContainsRune("/{}.", r) }) {
		if part != "api" {
			id += "-" + part
		}
	}
	return id
}

func parameters(rt *route, reg huma.Registry) (out []*huma.Param) {
	for part := range strings.SplitSeq(rt.path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			name = strings.TrimSuffix(strings.TrimSuffix(name, "}"), "...")
			out = append(out, &huma.Param{Name: name, In: "path", Required: true, Schema: &huma.Schema{Type: "string"}})
		}
	}
	for _, p := range rt.params {
		s := reg.Schema(reflect.TypeOf(p.schema), false, "")
		for _, w := range p.words {
			s.Enum = append(s.Enum, w)
		}
		out = append(out, &huma.Param{Name: p.name, In: p.in, Description: p.about, Schema: s})
	}
	return out
}

func responses(rt *route, reg huma.Registry) map[string]*huma.Response {
	out := map[string]*huma.Response{}
	ok := &huma.Response{Description: "Done"}
	switch {
	case rt.media != "":
		ok.Content = map[string]*huma.MediaType{rt.media: {Schema: &huma.Schema{Type: "string"}}}
		if rt.out != nil { // what one piece of the stream holds; list its schema
			reg.Schema(reflect.TypeOf(rt.out), true, "")
		}
	case rt.out != nil:
		ok.Content = content("application/json", rt.out, reg)
	}
	if _, is := rt.out.(api.QueryReply); is {
		ok.Content[api.ParquetType] = &huma.MediaType{Schema: &huma.Schema{Type: "string", Format: "binary"}}
	}
	if rt.drawn {
		for _, form := range []plot.Format{plot.SVG, plot.PNG} {
			ok.Content[form.MediaType()] = &huma.MediaType{Schema: &huma.Schema{Type: "string", Format: "binary"}}
		}
	}
	out["200"] = ok
	bad := slices.Clone(rt.errors)
	if rt.may != open {
		bad = append(bad, http.StatusUnauthorized, http.StatusForbidden)
	}
	for _, status := range append(bad, http.StatusInternalServerError) {
		var body any = api.Error{}
		if rt.may == open && status == http.StatusServiceUnavailable {
			body = api.Health{}
		}
		out[strconv.Itoa(status)] = &huma.Response{
			Description: http.StatusText(status), Content: content("application/json", body, reg),
		}
	}
	return out
}

func content(media string, v any, reg huma.Registry) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{media: {Schema: reg.Schema(reflect.TypeOf(v), true, "")}}
}

// loosen allows further fields in what the API sends, so that it can grow, and
// keeps them out of what it takes. It also drops from the required fields those
// that have a default.
func loosen(reg huma.Registry, routes []route) {
	strict := []string{"Requirements", "RetryPolicy", "Limits"}
	for _, rt := range routes {
		if _, loose := rt.in.(api.RegisterRequest); rt.in != nil && !loose {
			strict = append(strict, reflect.TypeOf(rt.in).Name())
		}
	}
	for name, s := range reg.Map() {
		if closed, is := s.AdditionalProperties.(bool); is && !closed && !slices.Contains(strict, name) {
			s.AdditionalProperties = nil
		}
	}
	spec := reg.Schema(reflect.TypeFor[labmesh.Spec](), false, "")
	spec.Required = slices.DeleteFunc(spec.Required, func(f string) bool { return f == "priority" })
	spec.Properties["priority"].Default = api.PriorityDefault
}
