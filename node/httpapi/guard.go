package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"labmesh"
	"labmesh/api"
)

// credentialBytesMax bounds what is tried as a key or a token.
const credentialBytesMax = 4096

// hostGuard decides to which Host a request may be sent.
type hostGuard struct {
	on      bool
	allowed []string
}

func newHostGuard(on bool, allowed []string) hostGuard {
	g := hostGuard{on: on}
	for _, h := range allowed {
		g.allowed = append(g.allowed, hostname(h))
	}
	return g
}

// allows is false for a name that anybody's DNS could point at loopback.
func (g hostGuard) allows(host string) bool {
	if !g.on {
		return true
	}
	name := hostname(host)
	if name == "localhost" || slices.Contains(g.allowed, name) {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.IsLoopback()
}

// sameOrigin is false for what a page of another site has a browser do. Programs send no Origin.
func sameOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return r.Header.Get("Sec-Fetch-Site") != "cross-site" || r.Method == http.MethodGet || r.Method == http.MethodHead
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host == r.Host
}

// hostname is host in lower case, without port, brackets and a final dot.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

// authenticate finds out who sends r.
func (a *API) authenticate(r *http.Request) (Caller, error) {
	credential := credentialOf(r)
	if credential == "" || len(credential) > credentialBytesMax {
		return Caller{}, labmesh.Refuse(labmesh.Denied, "")
	}
	c, err := a.svc.Authenticate(credential)
	if err != nil {
		return Caller{}, err
	}
	c.Remote = r.RemoteAddr
	return c, nil
}

// credentialOf is the API key or the token that r bears, or "".
func credentialOf(r *http.Request) string {
	if key := r.Header.Get("X-API-Key"); key != "" {
		return strings.TrimSpace(key)
	}
	scheme, key, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(key)
}

// failAuth answers a request whose sender is not known. A refusal other than
// Denied says that the node cannot tell just now.
func (a *API) failAuth(w http.ResponseWriter, r *http.Request, err error) {
	if labmesh.ReasonOf(err) != labmesh.Denied {
		a.fail(w, r, err)
		return
	}
	w.Header().Set("WWW-Authenticate", `Bearer realm="labmesh"`)
	writeJSON(w, http.StatusUnauthorized, &api.Error{Message: "Authentication required", Reason: labmesh.Denied, Hint: err.Error()})
}
