package httpapi

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"

	"labmesh"
)

// signatureHeader bears the signature of a request, see docs/security.md.
const signatureHeader = "X-Labmesh-Signature"

// signedBytesMax bounds the body of a request that is signed: all of it is read
// before any of it is believed.
const signedBytesMax = 64 << 20

// proveSigned refuses a request that the caller's key has not signed.
func (a *API) proveSigned(w http.ResponseWriter, r *http.Request, c Caller) error {
	header := r.Header.Get(signatureHeader)
	if header == "" {
		return labmesh.Refuse(labmesh.Denied, "The key %s demands that requests are signed, in the header %s: see docs/security.md", c.ID, signatureHeader)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, signedBytesMax))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return tooLarge(signedBytesMax)
	case err != nil:
		return labmesh.Refuse(labmesh.Invalid, "The body broke off after %d bytes", len(body))
	}
	if err := a.svc.VerifySigned(c, header, r.Method, r.URL.RequestURI(), sha256.Sum256(body)); err != nil {
		return err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}
