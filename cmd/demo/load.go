package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"labmesh"
	"labmesh/api"
	"labmesh/lab"
)

// longSeconds is how long the tasks run that must not notice the death of the leader.
const longSeconds = 8

// work is a real task and the verdict that it must come to.
type work struct {
	spec labmesh.Spec
	want labmesh.Phase
}

// examples finds the repository's examples, from anywhere in it.
func examples() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if mod := strings.TrimSpace(string(out)); err == nil && mod != "" && mod != os.DevNull {
		return filepath.Join(filepath.Dir(mod), "examples"), nil
	}
	return "", errors.New("the demo runs a Go test of this repository: start it there, with go on the PATH")
}

// mix is about n real tasks: programs short and longer, some of which fail as
// they should, and tests in Python and Go.
func mix(n int, examples string) []work {
	all := []work{
		test(filepath.Join(examples, "gotest", "quantile_test.go")),
		test(filepath.Join(examples, "pytest", "test_wilson.py")),
		test(filepath.Join(examples, "pytest", "test_wilson.py")),
	}
	for i := len(all); i < n; i++ {
		switch i % 6 {
		case 0:
			all = append(all, program("true"))
		case 1:
			all = append(all, script("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo $i"))
		case 2:
			all = append(all, program("sleep", "0.25"))
		case 3:
			all = append(all, program("seq", "5000"))
		case 4:
			all = append(all, script("echo to stdout; echo to stderr >&2; sleep 0.3"))
		default:
			w := script("echo it is meant to fail; exit 3")
			w.want = labmesh.Failed
			all = append(all, w)
		}
	}
	return all
}

// long is a task on n that outlasts the failover.
func long(n *lab.Node) work {
	w := program("sleep", fmt.Sprint(longSeconds))
	w.spec.Requirements.WorkerID = n.Worker()
	w.spec.Priority = api.PriorityMax
	return w
}

func program(name string, args ...string) work {
	return custom(map[string]any{"name": name, "args": args})
}

func script(text string) work { return custom(map[string]any{"name": text, "shell": true}) }

func custom(config map[string]any) work {
	return work{labmesh.Spec{Kind: labmesh.Custom, Priority: api.PriorityDefault, Config: encode(config)}, labmesh.Completed}
}

func test(file string) work {
	return work{labmesh.Spec{Kind: labmesh.Test, Name: filepath.Base(file), Priority: api.PriorityDefault + 1,
		Config: encode(map[string]any{"test_file": file})}, labmesh.Completed}
}

func encode(config map[string]any) json.RawMessage {
	data, err := json.Marshal(config)
	if err != nil {
		panic(err) // strings always encode
	}
	return data
}
