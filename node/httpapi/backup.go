package httpapi

import (
	"net/http"

	"labmesh/api"
)

// backup sends a backup. One that breaks off lacks its end, which restore notices.
func (a *API) backup(w http.ResponseWriter, r *http.Request, _ Caller) error {
	write, err := a.svc.Backup(r.Context())
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", api.BackupType)
	h.Set("Content-Disposition", `attachment; filename="labmesh.backup"`)
	h.Set("Cache-Control", "no-store")
	if r.Method == http.MethodHead {
		return nil
	}
	if err := write(newStreamWriter(w, logPieceWait)); err != nil {
		if r.Context().Err() == nil {
			a.log.WarnContext(r.Context(), "backup broke off", "err", err)
		}
		panic(http.ErrAbortHandler)
	}
	return nil
}
