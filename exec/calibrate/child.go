package calibrate

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"time"
)

// childTimeout bounds a measurement: a disk may be very slow.
const childTimeout = 2 * time.Minute

// Child measures in a process of its own: the program with args, and after them
// the directory and the machine's memory in bytes, must call [Main]. When ctx ends the process is killed.
func Child(program string, args ...string) func(ctx context.Context, dir string, memory int64) (Result, error) {
	return func(ctx context.Context, dir string, memory int64) (r Result, err error) {
		ctx, cancel := context.WithTimeout(ctx, childTimeout)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, append(args, dir, strconv.FormatInt(memory, 10))...)
		cmd.WaitDelay = time.Second
		out, err := cmd.Output()
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		if err == nil {
			err = json.Unmarshal(out, &r)
		}
		if err != nil {
			return Result{}, fmt.Errorf("measure how fast this machine is: %w", err)
		}
		return r, nil
	}
}

// Main is the process that [Child] starts: it measures and writes the result to w.
func Main(ctx context.Context, w io.Writer, dir, memory string) error {
	bytes, err := strconv.ParseInt(memory, 10, 64)
	if err != nil || bytes < 0 {
		return fmt.Errorf("%.40q is no size of memory", memory)
	}
	r, err := Measure(ctx, Config{Dir: dir, MemoryBytes: bytes})
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(r)
}
