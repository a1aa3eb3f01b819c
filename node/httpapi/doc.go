// Package httpapi is the HTTP door of a node: the routes of the contract, who
// may use them, bounded bodies, errors that name the field at fault, streams of
// events and logs, figures for Prometheus, and the OpenAPI document. It knows
// the node only through [Service].
//
// All routes are in one table (routes.go), of which the mux and the document are
// made. A request goes through these hands, in this order:
//
//	hostGuard      was it meant for this node?            403
//	authenticate   who sends it? /healthz and /readyz ask nobody   401
//	methods        is there such a thing, and such a method?       404, 405
//	covers         may its sender do this?                403
//	route.serve    reads, decodes, asks the Service, replies
//	API.fail       turns a refusal into its status, and a fault into a 500
//	               whose details are in the log, under the request id
//
// A stream that breaks off has its connection cut, so that what looks whole to
// a client is whole.
package httpapi
