package sandbox

import (
	"encoding/json"
	"os"
)

// Failure is why a program was not started in its sandbox.
type Failure struct {
	// Program says that the sandbox was made, and that the program could not be run
	// in it; otherwise the sandbox is at fault.
	Program bool   `json:"program,omitempty"`
	Message string `json:"message"`
}

// faultBytesMax bounds the file that says it.
const faultBytesMax = 4 << 10

// Fault reads what the file named in [Program].Fault says; ok is false when the
// program was started.
func Fault(file string) (f Failure, ok bool) {
	data, err := os.ReadFile(file)
	if err != nil || len(data) > faultBytesMax {
		return f, false
	}
	if json.Unmarshal(data, &f) != nil || f.Message == "" {
		f.Message = "it could not be made, and there is no word why"
	}
	return f, true
}

// leave writes the file.
func (f Failure) leave(file string) {
	f.Message = f.Message[:min(len(f.Message), faultBytesMax/8)]
	data, err := json.Marshal(f)
	if err == nil {
		err = os.WriteFile(file, data, 0o600)
	}
	if err != nil {
		_, _ = os.Stderr.WriteString("labmesh: " + f.Message + "\n") // the last place to say it
	}
}
