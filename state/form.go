package state

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Form names how this build writes a state: builds whose snapshots may hold
// different fields have different forms, and what they write cannot be compared.
func Form() string {
	h := sha256.New()
	for _, t := range []reflect.Type{reflect.TypeFor[header](), reflect.TypeFor[record]()} {
		describe(h, t, map[reflect.Type]bool{})
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}

// describe writes what of t is written as JSON: names, tags and types of fields.
func describe(w io.Writer, t reflect.Type, seen map[reflect.Type]bool) {
	fmt.Fprintf(w, "%s %s\n", t, t.Kind())
	if seen[t] {
		return
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		if t.Kind() == reflect.Map {
			describe(w, t.Key(), seen)
		}
		describe(w, t.Elem(), seen)
	case reflect.Struct:
		if !strings.HasPrefix(t.PkgPath(), "labmesh") {
			return // of the standard library
		}
		for f := range t.Fields() {
			fmt.Fprintf(w, "%s %q ", f.Name, f.Tag)
			describe(w, f.Type, seen)
		}
	default: // its name says all
	}
}
