// Package httpapi is the HTTP door of a node: the routes of the contract, who
// may use them, bounded bodies, errors that name the field at fault, and the
// OpenAPI document. It knows the node only through [Service].
package httpapi
