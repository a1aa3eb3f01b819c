package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	"labmesh"
	"labmesh/exec"
)

// Limits on the config of a custom task.
const (
	stdinBytesMax = 1 << 20
	graceMax      = 5 * time.Minute
)

// Custom runs a program. Its exit code is the verdict.
type Custom struct{ shop *shop }

// CustomConfig is the config of a custom task.
type CustomConfig struct {
	// Name is the program: a path, or a name to be found on PATH. With Shell
	// it is a script for /bin/sh, which sees Args as $1, $2 and so on.
	Name  string   `json:"name"`
	Args  []string `json:"args,omitempty"`
	Shell bool     `json:"shell,omitempty"`
	// Dir is where it runs: an absolute path, or one from the work directory,
	// which is also the default.
	Dir string `json:"dir,omitempty"`
	// Umask is the file mode creation mask as octal digits, e.g. "022"; without it, the node's.
	Umask string `json:"umask,omitempty"`
	// Stdin is what it can read; without it, nothing.
	Stdin string `json:"stdin,omitempty"`
	// GraceSeconds is the time between SIGTERM and SIGKILL on cancel and
	// timeout; 0 leaves it to the node.
	GraceSeconds float64 `json:"grace_seconds,omitempty"`
}

// Validate refuses what makes no sense, naming the field.
func (c CustomConfig) Validate() error {
	switch {
	case c.Name == "":
		return labmesh.RefuseField("config.name", "config: name: it is missing: give the program to run")
	case strings.ContainsRune(c.Name, 0):
		return labmesh.RefuseField("config.name", "config: name: it holds a NUL byte")
	case strings.ContainsRune(strings.Join(c.Args, ""), 0):
		return labmesh.RefuseField("config.args", "config: args: an argument holds a NUL byte")
	case len(c.Stdin) > stdinBytesMax:
		return labmesh.RefuseField("config.stdin", "config: stdin: it has %d bytes, more than %d", len(c.Stdin), stdinBytesMax)
	case c.GraceSeconds < 0 || c.GraceSeconds > graceMax.Seconds():
		return labmesh.RefuseField("config.grace_seconds", "config: grace_seconds: it must be from 0 to %g", graceMax.Seconds())
	}
	return checkPlace(c.Umask, c.Dir)
}

// ParseCustom reads the config of a custom task and refuses what it does not know.
func ParseCustom(config json.RawMessage) (CustomConfig, error) {
	var c CustomConfig
	if err := decodeStrict(config, &c); err != nil {
		return c, err
	}
	return c, c.Validate()
}

// Run runs the program of a custom task.
func (c *Custom) Run(ctx context.Context, a exec.Attempt) labmesh.Outcome {
	conf, err := ParseCustom(a.Task.Spec.Config)
	if err != nil {
		return fault(err)
	}
	j := job{name: conf.Name, args: conf.Args, dir: conf.Dir, stdin: conf.Stdin, umask: conf.Umask,
		grace: time.Duration(conf.GraceSeconds * float64(time.Second))}
	if conf.Shell {
		j.name, j.args = "/bin/sh", append([]string{"-c", conf.Name, "sh"}, conf.Args...)
	}
	exit, err := c.shop.run(ctx, a, j)
	if err != nil {
		return fault(err)
	}
	return conclude(ctx, a, exit, result{})
}

// decodeStrict reads a config into to. Its refusals name the field at fault.
func decodeStrict(config json.RawMessage, to any) error {
	if len(bytes.TrimSpace(config)) == 0 {
		config = json.RawMessage("{}")
	}
	dec := json.NewDecoder(bytes.NewReader(config))
	dec.DisallowUnknownFields()
	err := dec.Decode(to)
	if err == nil {
		if _, more := dec.Token(); more != io.EOF {
			return labmesh.RefuseField("config", "config: there is something after its end")
		}
		return nil
	}
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		field := "config"
		if kind.Field != "" {
			field += "." + kind.Field
		}
		return labmesh.RefuseField(field, "config: %s: it must be %s, not %s", strings.TrimPrefix(field, "config."), words(kind.Type.String()), kind.Value)
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		name = strings.Trim(name, `"`)
		return labmesh.RefuseField("config."+name, "config: %s: there is no such field", name)
	}
	return labmesh.RefuseField("config", "config: %v", err)
}

// words names a type of a field for people.
func words(kind string) string {
	switch kind {
	case "string":
		return "a text"
	case "bool":
		return "true or false"
	case "float64":
		return "a number"
	case "[]string":
		return "a list of texts"
	}
	return "an object"
}
