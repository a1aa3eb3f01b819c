package main

import (
	"github.com/spf13/cobra"

	"labmesh/exec/probe"
	"labmesh/store/duckdb"
)

// The commands that the node runs in a process of their own, because what they
// touch may take the process down with it.
const (
	internalCommand = "internal"
	gpuCommand      = "gpu"
	ledgerCommand   = "check-ledger"
)

func newInternalCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: internalCommand, Short: "What the node runs in child processes", Hidden: true}
	cmd.AddCommand(
		&cobra.Command{
			Use: gpuCommand, Short: "Ask the GPU driver what there is", Example: "  labmesh internal gpu",
			Args: args(cobra.NoArgs, "it takes no arguments"),
			RunE: func(*cobra.Command, []string) error { return probe.GPUChild(a.out) },
		},
		&cobra.Command{
			Use: ledgerCommand + " FILE", Short: "Open a ledger file and read it", Example: "  labmesh internal check-ledger ledger.duckdb",
			Args: args(cobra.ExactArgs(1), "it takes the path of a ledger"),
			RunE: func(_ *cobra.Command, paths []string) error { return duckdb.CheckFile(paths[0]) },
		},
	)
	return cmd
}
