package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"labmesh/exec/calibrate"
	"labmesh/exec/keeper"
	"labmesh/exec/probe"
	"labmesh/exec/sandbox"
	"labmesh/infer/serve"
	"labmesh/store/duckdb"
)

// The commands that the node runs in a process of their own, because what they
// touch may take the process down with it.
const (
	internalCommand = "internal"
	gpuCommand      = "gpu"
	statesCommand   = "gpu-states"
	ledgerCommand   = "check-ledger"

	calibrateCommand = "calibrate"
	keeperCommand    = "keeper"
	sandboxCommand   = "sandbox"
	runnerCommand    = "bench-runner"
)

// keepPrograms is the process that keeps programs running while the node is
// away, when the command line asks for that: main enters it before anything
// else, so that it stays small. It returns false on any other command line.
func keepPrograms(args []string, errw io.Writer) (code int, asked bool) {
	if len(args) != 5 || args[1] != internalCommand || args[2] != keeperCommand {
		return 0, false
	}
	window, err := time.ParseDuration(args[4])
	if err == nil {
		err = keeper.Main(args[3], window)
	}
	if err != nil {
		fmt.Fprintln(errw, err)
		return exitFailed, true
	}
	return exitDone, true
}

// shutIn plays a part of a sandbox when the command line asks for that: main
// enters it before anything else too, since each program in a sandbox does twice.
func shutIn(args []string) (code int, asked bool) {
	if len(args) < 4 || args[1] != internalCommand || args[2] != sandboxCommand {
		return 0, false
	}
	return sandbox.Main(args[3:]), true
}

// measure is the runner of the built-in engine, when the command line asks for that:
// main enters it before anything else too, since what else this process did would be measured with it.
func measure(args []string, in io.Reader, out, errw io.Writer) (code int, asked bool) {
	if len(args) != 4 || args[1] != internalCommand || args[2] != runnerCommand || args[3] != "run" && args[3] != "probe" {
		return 0, false
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	if err := serve.Run(ctx, in, out, args[3] == "probe"); err != nil {
		fmt.Fprintln(errw, err)
		return exitFailed, true
	}
	return exitDone, true
}

func newInternalCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: internalCommand, Short: "What the node runs in child processes", Hidden: true}
	cmd.AddCommand(
		&cobra.Command{
			Use: gpuCommand, Short: "Ask the GPU driver what there is", Example: "  labmesh internal gpu",
			Args: args(cobra.NoArgs, "it takes no arguments"),
			RunE: func(*cobra.Command, []string) error { return probe.GPUChild(a.out) },
		},
		&cobra.Command{
			Use: statesCommand, Short: "Ask the GPU driver, again and again, how the GPUs are", Example: "  echo 1 | labmesh internal gpu-states",
			Args: args(cobra.NoArgs, "it takes no arguments"),
			RunE: func(*cobra.Command, []string) error { return probe.GPUStatesChild(a.in, a.out) },
		},
		&cobra.Command{
			Use: keeperCommand + " DIR WINDOW", Short: "Keep programs running while the node is away", Example: "  labmesh internal keeper <data-dir>/running 6s",
			Args: args(cobra.ExactArgs(2), "it takes a directory and how long to wait for the node, and is started by the node"),
			RunE: func(*cobra.Command, []string) error { return errors.ErrUnsupported }, // main has seen to it
		},
		&cobra.Command{
			Use: sandboxCommand + " PART …", Short: "Play a part of a program's sandbox", Example: "  labmesh internal sandbox outer …",
			Args: args(cobra.MinimumNArgs(1), "it is started by the node"), DisableFlagParsing: true,
			RunE: func(*cobra.Command, []string) error { return errors.ErrUnsupported }, // main has seen to it
		},
		&cobra.Command{
			Use: runnerCommand + " run|probe", Short: "Measure models with the built-in engine, as a spec on stdin asks",
			Example: `  echo '{"v":1,"model":"bert-base-uncased","precision":"fp32","batch_sizes":[1,2],"iterations":20,"max_seconds_per_batch":60}' | labmesh internal bench-runner run`,
			Args:    args(cobra.ExactArgs(1), "it takes run or probe"),
			RunE: func(_ *cobra.Command, what []string) error { // main has seen to what there is
				return usageError{fmt.Errorf("%q is not run or probe", what[0])}
			},
		},
		&cobra.Command{
			Use: calibrateCommand + " DIR MEMORY", Short: "Measure how fast this machine is", Example: "  labmesh internal calibrate . 0",
			Args: args(cobra.ExactArgs(2), "it takes a directory on the disk to measure, and the machine's memory in bytes, or 0"),
			RunE: func(cmd *cobra.Command, on []string) error { return calibrate.Main(cmd.Context(), a.out, on[0], on[1]) },
		},
		&cobra.Command{
			Use: ledgerCommand + " FILE", Short: "Open a ledger file and read it", Example: "  labmesh internal check-ledger ledger.duckdb",
			Args: args(cobra.ExactArgs(1), "it takes the path of a ledger"),
			RunE: func(_ *cobra.Command, paths []string) error { return duckdb.CheckFile(paths[0]) },
		},
	)
	return cmd
}
