package runner

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"labmesh"
	"labmesh/exec"
)

// ownPrefix begins the names of variables that only the node may set.
const ownPrefix = "LABMESH_"

// defaultPath is where programs are looked for when the node has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// inherited lists, sorted, the variables of the node's environment that tasks see.
var inherited = []string{
	"ALL_PROXY", "CGO_ENABLED", "CUDA_HOME", "CUDA_PATH", "CUDA_VISIBLE_DEVICES",
	"GOCACHE", "GOFLAGS", "GOMODCACHE", "GONOSUMDB", "GOPATH", "GOPRIVATE", "GOPROXY", "GOROOT", "GOSUMDB", "GOTOOLCHAIN",
	"HF_HOME", "HOME", "HTTPS_PROXY", "HTTP_PROXY", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "LOGNAME",
	"NO_PROXY", "NVIDIA_VISIBLE_DEVICES", "PATH", "PIP_INDEX_URL", "PYENV_ROOT", "PYTHONPATH",
	"REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE", "TZ", "USER", "VIRTUAL_ENV",
	"XDG_CACHE_HOME", "all_proxy", "http_proxy", "https_proxy", "no_proxy",
}

// Environ is what every task sees of a node's environment.
func Environ(environ []string) []string { return inherit(environ) }

// inherit picks from a node's environment what tasks see of it.
func inherit(environ []string) []string {
	var base []string
	has := make(map[string]bool)
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		if _, ok := slices.BinarySearch(inherited, name); ok && !has[name] {
			has[name] = true
			base = append(base, v)
		}
	}
	if !has["PATH"] {
		base = append(base, "PATH="+defaultPath)
	}
	if !has["LANG"] {
		base = append(base, "LANG=C.UTF-8")
	}
	return base
}

// environment is what an attempt sees. What comes later wins: base, more, what the
// task says, over, secrets.
func environment(base []string, a exec.Attempt, more []string, over map[string]string) []string {
	env := make([]string, 0, len(base)+len(a.Task.Spec.Env)+len(more)+len(over)+4)
	set := func(v string) {
		name, _, _ := strings.Cut(v, "=")
		for i := range env {
			if strings.HasPrefix(env[i], name) && len(env[i]) > len(name) && env[i][len(name)] == '=' {
				env[i] = v
				return
			}
		}
		env = append(env, v)
	}
	env = append(env, base...)
	set("TMPDIR=" + a.Tmp())
	for _, v := range more {
		set(v)
	}
	for name, value := range a.Task.Spec.Env {
		set(name + "=" + value)
	}
	for name, value := range over {
		set(name + "=" + value)
	}
	for name, value := range a.Secrets {
		set(name + "=" + value)
	}
	return append(env,
		"LABMESH_TASK_ID="+string(a.Task.ID),
		"LABMESH_ATTEMPT="+strconv.Itoa(a.Number),
		"LABMESH_WORKER_ID="+string(a.Worker))
}

// checkEnv refuses variables that cannot be set.
func checkEnv(env map[string]string) error {
	for name, value := range env {
		switch {
		case name == "" || strings.ContainsAny(name, "=\x00"):
			return labmesh.RefuseField("env", "env: %q is no name for a variable", name)
		case strings.HasPrefix(name, ownPrefix):
			return labmesh.RefuseField("env", "env: %s: names that begin with %s are the node's to set", name, ownPrefix)
		case strings.ContainsRune(value, 0):
			return labmesh.RefuseField("env", "env: %s: it holds a NUL byte", name)
		}
	}
	return nil
}

// lookPath finds a program as the shell would: a name with a slash is a path
// from dir, any other is looked for in the PATH of env.
func lookPath(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, executable(name)
	}
	path := ""
	for _, v := range env {
		if p, ok := strings.CutPrefix(v, "PATH="); ok {
			path = p
		}
	}
	var denied error
	for _, d := range filepath.SplitList(path) {
		if !filepath.IsAbs(d) {
			continue // where a task runs must not decide what it runs
		}
		file := filepath.Join(d, name)
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if os.IsPermission(err) && denied == nil {
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", &os.PathError{Op: "look for", Path: name, Err: os.ErrNotExist}
}

// executable says what keeps a file from being run.
func executable(file string) error {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return err
	case info.IsDir() || info.Mode()&0o111 == 0:
		return &os.PathError{Op: "run", Path: file, Err: os.ErrPermission}
	}
	return nil
}
