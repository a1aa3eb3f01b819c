package client_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"labmesh"
	"labmesh/client"
)

func TestDiscoverFindsTheNode(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	own := filepath.Join(home, ".local", "share", "labmesh")
	other := filepath.Join(home, "other")
	xdg := filepath.Join(home, "xdg")
	damaged := filepath.Join(home, "damaged")
	for dir, content := range map[string]string{
		own:                           `{"url":"http://127.0.0.1:8080","api_key":"own","node_id":"n","mesh_id":"m"}`,
		other:                         `{"url":"http://127.0.0.1:9090","api_key":"other"}`,
		filepath.Join(xdg, "labmesh"): `{"url":"http://127.0.0.1:7070","api_key":"xdg"}`,
		damaged:                       `{"url":`,
	} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "api.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		where    client.Where
		env      map[string]string
		url, key string
		reason   labmesh.Reason
		message  string
	}{
		"the default data dir":      {url: "http://127.0.0.1:8080", key: "own"},
		"XDG_DATA_HOME":             {env: map[string]string{"XDG_DATA_HOME": xdg}, url: "http://127.0.0.1:7070", key: "xdg"},
		"a data dir":                {where: client.Where{DataDir: other}, url: "http://127.0.0.1:9090", key: "other"},
		"a data dir in the env":     {env: map[string]string{"LABMESH_DATA_DIR": other}, url: "http://127.0.0.1:9090", key: "other"},
		"a flag before the env":     {where: client.Where{DataDir: other}, env: map[string]string{"LABMESH_DATA_DIR": own}, url: "http://127.0.0.1:9090", key: "other"},
		"an address":                {where: client.Where{Addr: "lab2:8080", Key: "k"}, url: "http://lab2:8080", key: "k"},
		"an address in the env":     {env: map[string]string{"LABMESH_ADDR": "https://lab2/", "LABMESH_API_KEY": "k"}, url: "https://lab2", key: "k"},
		"this node by its address":  {where: client.Where{Addr: "127.0.0.1:8080"}, url: "http://127.0.0.1:8080", key: "own"},
		"another node gets no key":  {where: client.Where{Addr: "lab2:8080"}, url: "http://lab2:8080", key: ""},
		"another key for this node": {where: client.Where{Key: "k"}, url: "http://127.0.0.1:8080", key: "k"},
		"none":                      {where: client.Where{DataDir: home}, reason: labmesh.Unavailable, message: "labmesh up"},
		"a damaged file":            {where: client.Where{DataDir: damaged}, reason: labmesh.Invalid, message: "damaged"},
		"no address":                {where: client.Where{Addr: "ftp://x"}, reason: labmesh.Invalid, message: "http://HOST:PORT"},
	} {
		t.Run(name, func(t *testing.T) {
			c.where.Getenv = func(name string) string {
				if name == "HOME" {
					return home
				}
				return c.env[name]
			}
			got, err := client.Discover(c.where)
			if labmesh.ReasonOf(err) != c.reason || err != nil && !strings.Contains(err.Error(), c.message) {
				t.Fatalf("error %q (%s), want reason %q and %q", err, labmesh.ReasonOf(err), c.reason, c.message)
			}
			if err == nil && (got.URL != c.url || got.Key != c.key) {
				t.Errorf("found %s with key %q, want %s with %q", got.URL, got.Key, c.url, c.key)
			}
		})
	}
}
