package duckdb

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"labmesh/store/storetest"
)

// appendForEver appends to the ledger at path from where it stands, and prints
// each index once it is acknowledged, until it is killed.
func appendForEver(path string) {
	ctx := context.Background()
	db, _, err := Open(ctx, Config{Path: path, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	at, err := db.Applied()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	m := storetest.NewMesh(at, at*50)
	for {
		events := m.FinishBatch(50)
		if err := db.Append(ctx, m.Index, events); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(m.Index)
	}
}

// hold opens the ledger at path, says so, and waits to be killed.
func hold(path string) {
	_, _, err := Open(context.Background(), Config{Path: path, Logger: slog.New(slog.DiscardHandler)})
	fmt.Println("held", err)
	select {}
}
