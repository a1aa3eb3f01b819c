package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"labmesh/api"
)

func TestSecretCommands(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	var mu sync.Mutex
	kept := map[string]string{}
	n.override = func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		name, one := strings.CutPrefix(r.URL.Path, "/api/secrets/")
		switch {
		case r.URL.Path == "/api/secrets":
			answer(w, 200, api.SecretList{Secrets: []api.Secret{{Name: "A", By: "ada"}}})
		case one && r.Method == http.MethodPut:
			body, _ := io.ReadAll(r.Body)
			var req api.SecretRequest
			if err := json.Unmarshal(body, &req); err != nil {
				t.Error(err)
			}
			kept[name] = req.Value
			answer(w, 200, api.SecretReply{Name: name})
		case one && kept[name] == "":
			answer(w, 404, api.Error{Message: "Secret not found"})
		case one:
			delete(kept, name)
			answer(w, 200, api.SecretReply{Name: name})
		default:
			return false
		}
		return true
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	set := func(stdin string, code int, says string, args ...string) {
		t.Helper()
		r := n.with(t, t.Context(), stdin, nil, append([]string{"secret"}, args...)...)
		if r.code != code || !strings.Contains(r.err+r.stdout, says) {
			t.Errorf("%q: %+v, want %d %q", args, r, code, says)
		}
		if strings.Contains(r.err+r.stdout, "hunter") {
			t.Errorf("%q shows the value: %+v", args, r)
		}
	}
	for stdin, want := range map[string]string{"hunter22": "hunter22", "hunter22\n": "hunter22", "hunter22\r\n": "hunter22", "two\nhunters\n\n": "two\nhunters\n"} {
		set(stdin, 0, "Secret TOKEN is set", "set", "TOKEN")
		if kept["TOKEN"] != want {
			t.Errorf("%q is kept as %q", stdin, kept["TOKEN"])
		}
	}
	set("not this", 0, "is set", "set", "KEY", "--from-file", file)
	if kept["KEY"] != "from a file\n" {
		t.Errorf("the file is kept as %q", kept["KEY"])
	}
	set("abc", 0, "is not hidden", "set", "PIN")
	set("", 2, "empty", "set", "EMPTY")
	set("\n", 2, "empty", "set", "EMPTY")
	set(strings.Repeat("x", 64<<10+1)+"\n", 2, "65536", "set", "BIG")
	set(strings.Repeat("x", 64<<10)+"\r\n", 0, "is set", "set", "BIG")
	set("x", 2, "not a name", "set", "not-a-name")
	set("x", 2, "LABMESH_", "set", "LABMESH_X")
	set("", 2, "for all on this machine to see", "set", "TOKEN=hunter22")
	set("", 2, "it takes the name", "set", "TOKEN", "hunter22")
	set("", 2, "no such file", "set", "TOKEN", "--from-file", file+"x")
	set("", 0, "A  ", "list")
	set("", 0, "Secret TOKEN is removed", "rm", "TOKEN")
	set("", 2, "Secret not found", "rm", "TOKEN")
	set("", 2, "there is no command", "show", "TOKEN")
	if _, ok := kept["EMPTY"]; ok {
		t.Error("an empty value was set")
	}
}

func TestRunNamesItsSecrets(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	if r := n.with(t, t.Context(), "", nil, "run", "--secret", "A,B", "--secret", "C", "--", "true"); r.code != 0 {
		t.Errorf("%+v", r)
	}
	if len(n.specs) != 1 || strings.Join(n.specs[0].Secrets, " ") != "A B C" {
		t.Errorf("%+v", n.specs)
	}
	for _, args := range [][]string{{"--secret", "A", "--env", "A=1"}, {"--secret", "A,A"}, {"--secret", "a-b"}, {"--secret", "LABMESH_API_KEY"}} {
		r := n.with(t, t.Context(), "", nil, append(append([]string{"run"}, args...), "--", "true")...)
		if r.code != 2 || !strings.Contains(r.err, "secrets") {
			t.Errorf("%q: %+v", args, r)
		}
	}
}
