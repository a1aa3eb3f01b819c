package httpapi

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"strconv"
	"time"

	"labmesh"
	"labmesh/api"
)

const (
	uploadWait = 10 * time.Minute // for one body of chunks
	uploadsMax = 16               // bodies of chunks, and manifests, that are read at the same time
)

// missingChunks answers which chunks of a bundle must be sent.
func (a *API) missingChunks(w http.ResponseWriter, r *http.Request, _ Caller) error {
	body, err := readBody(w, r, a.limits.BodyBytes)
	if err != nil {
		return err
	}
	var req api.MissingRequest
	if err := decodeStrict(body, &req); err != nil {
		return err
	}
	if len(req.Chunks) > api.HashesMax {
		return labmesh.Refuse(labmesh.TooLarge, "chunks: there are more than %d: ask for them in parts", api.HashesMax)
	}
	for i, h := range req.Chunks {
		if !api.ValidContentID(h) {
			return labmesh.RefuseField(fmt.Sprintf("chunks[%d]", i), "chunks[%d]: %.80q is no SHA-256 as 64 hexadecimal digits", i, h)
		}
	}
	missing, err := a.svc.MissingChunks(r.Context(), req.Chunks)
	if err != nil {
		return err
	}
	return a.reply(w, r, api.MissingReply{Missing: orNone(missing)})
}

// putChunks takes chunks, one after the other as they come: of a body no more
// than one chunk is in memory.
func (a *API) putChunks(w http.ResponseWriter, r *http.Request, _ Caller) error {
	release, err := a.openUpload(r)
	if err != nil {
		return err
	}
	defer release()
	if r.ContentLength > api.UploadBytesMax {
		drain(r.Body)
		return tooLarge(api.UploadBytesMax)
	}
	body := http.MaxBytesReader(w, r.Body, api.UploadBytesMax)
	buf := make([]byte, api.ChunkBytesMax)
	var reply api.ChunksReply
	for {
		chunk, err := api.ReadChunk(body, buf)
		if errors.Is(err, io.EOF) {
			return a.reply(w, r, reply)
		}
		if err == nil {
			err = a.svc.PutChunk(r.Context(), chunk)
		}
		if err != nil {
			drain(r.Body)
			return broken(err, api.UploadBytesMax)
		}
		reply.Chunks++
		reply.Bytes += int64(len(chunk))
	}
}

// putBundle makes a bundle of a manifest whose chunks have been sent.
func (a *API) putBundle(w http.ResponseWriter, r *http.Request, _ Caller) error {
	release, err := a.openUpload(r)
	if err != nil {
		return err
	}
	defer release()
	manifest, err := io.ReadAll(http.MaxBytesReader(w, r.Body, api.ManifestBytesMax))
	if err != nil {
		drain(r.Body)
		return broken(err, api.ManifestBytesMax)
	}
	b, err := a.svc.PutBundle(r.Context(), manifest)
	if err != nil {
		return err
	}
	return a.reply(w, r, b)
}

// openUpload makes room for one more upload.
func (a *API) openUpload(r *http.Request) (release func(), err error) {
	select {
	case a.uploads <- struct{}{}:
		return func() { <-a.uploads }, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// broken is what became of a body that could not be read to its end.
func broken(err error, limit int64) error {
	var over *http.MaxBytesError
	var refused *labmesh.Error
	switch {
	case errors.As(err, &over):
		return tooLarge(limit)
	case errors.As(err, &refused):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return labmesh.Refuse(labmesh.Invalid, "The body broke off")
	}
	return err
}

// artifacts lists the files that an attempt left.
func (a *API) artifacts(w http.ResponseWriter, r *http.Request, c Caller) error {
	id, attempt, err := a.attemptOf(r, c)
	if err != nil {
		return err
	}
	list, err := a.svc.Artifacts(r.Context(), id, attempt)
	if err != nil {
		return rename(err, taskNotFound)
	}
	list.Files = orNone(list.Files)
	return a.reply(w, r, list)
}

// artifact sends one file that an attempt left, or a range of it.
func (a *API) artifact(w http.ResponseWriter, r *http.Request, c Caller) error {
	id, attempt, err := a.attemptOf(r, c)
	if err != nil {
		return err
	}
	name := r.PathValue("path")
	f, content, err := a.svc.OpenArtifact(r.Context(), id, attempt, name)
	if err != nil {
		return err
	}
	defer content.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": path.Base(f.Path)}))
	h.Set("Cache-Control", "no-store")
	if seeker, can := content.(io.ReadSeeker); can {
		http.ServeContent(slowly(w), r, "", time.Time{}, seeker)
		return nil
	}
	h.Set("Content-Length", strconv.FormatInt(f.Bytes, 10))
	if r.Method == http.MethodHead {
		return nil
	}
	if _, err := io.Copy(newStreamWriter(w, logPieceWait), content); err != nil {
		if r.Context().Err() == nil {
			a.log.WarnContext(r.Context(), "artifact broke off", "task", id, "path", name, "err", err)
		}
		panic(http.ErrAbortHandler)
	}
	return nil
}

// attemptOf is the task and the attempt that a request is about, 0 for the newest.
func (a *API) attemptOf(r *http.Request, c Caller) (id labmesh.TaskID, attempt int, err error) {
	if id, err = a.visibleID(r, c); err != nil {
		return "", 0, err
	}
	q := r.URL.Query()
	if q.Has("attempt") {
		attempt, err = strconv.Atoi(q.Get("attempt"))
		if err != nil || attempt < 0 || attempt > attemptNumbers {
			return "", 0, labmesh.RefuseField("attempt", "attempt: %.40q is not the number of an attempt", q.Get("attempt"))
		}
	}
	return id, attempt, nil
}

// slowly is w for a caller who has a bounded time for each piece, and all the
// time it likes for the whole.
func slowly(w http.ResponseWriter) http.ResponseWriter {
	return &pieceWriter{ResponseWriter: w, pieces: newStreamWriter(w, logPieceWait)}
}

type pieceWriter struct {
	http.ResponseWriter
	pieces *streamWriter
}

func (p *pieceWriter) Write(b []byte) (int, error) { return p.pieces.Write(b) }
