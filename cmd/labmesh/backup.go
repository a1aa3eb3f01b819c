package main

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labmesh"
	"labmesh/client"
	"labmesh/node"
)

func newBackupCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Write the whole mesh into one file while it runs: state, results, keys and secrets",
		Long: `Write a backup of the mesh, as one node knows it at one moment, while it goes on:
all tasks, all rows of the ledger, members, keys and secrets. It holds the secrets in
the clear, and is readable by you alone (0600): keep it like a password. What tasks were given and left
as files (bundles, artifacts) and their output are not in it.

The file is whole or not there. labmesh restore makes a new node of it.`,
		Example: `  labmesh backup lab.backup
  labmesh backup "/backups/labmesh-$(date +%F).backup"`,
		Args: args(cobra.ExactArgs(1), "it takes the file to write"),
		RunE: func(cmd *cobra.Command, names []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			return a.backUp(cmd, c, names[0])
		},
	}
}

func (a *app) backUp(cmd *cobra.Command, c *client.Client, name string) (err error) {
	if _, err := os.Lstat(name); err == nil {
		return usagef("%s is there already: name another file", name)
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*") // 0600
	if err != nil {
		return usagef("write %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	err = c.Backup(cmd.Context(), tmp)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	info, err := node.CheckBackup(tmp.Name())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), name); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(info)
	}
	_, err = fmt.Fprintf(a.out, "%s: mesh %s up to log entry %d of %s. It holds the secrets of the mesh: keep it like a password.\n", name, info.Mesh, info.Index, info.At.Local().Format(time.DateTime))
	return err
}

func newRestoreCommand(a *app) *cobra.Command {
	var hostname string
	cmd := &cobra.Command{
		Use:   "restore FILE --data-dir DIR",
		Short: "Make the data dir of a new node from a backup",
		Long: `Make of a backup the data dir of a new node, which then is the only member of its
mesh: labmesh up goes on from there. All results are there; API keys and secrets hold; what
ran when the backup was made counts as lost and is run again.

The node has a key of its own, and the members that the mesh had are banned: other machines
come in by labmesh invite, with an empty data dir. Machines of the old mesh that still run stay by
themselves.`,
		Example: `  labmesh restore lab.backup --data-dir /srv/labmesh
  labmesh up --data-dir /srv/labmesh`,
		Args: args(cobra.ExactArgs(1), "it takes the file of a backup"),
		RunE: func(cmd *cobra.Command, names []string) error {
			if a.dataDir == "" {
				return usagef("restore: say where to, by --data-dir; see `labmesh restore --help`")
			}
			info, id, err := node.Restore(cmd.Context(), node.RestoreConfig{File: names[0], DataDir: a.dataDir, Hostname: hostname, Logger: quietLogger(a)})
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]any{"backup": info, "node_id": id, "data_dir": a.dataDir})
			}
			_, err = fmt.Fprintf(a.out, "%s holds node %s, the only member of mesh %s, as it was at log entry %d of %s.\nNext: labmesh up --data-dir %s\n",
				a.dataDir, id, info.Mesh, info.Index, info.At.Local().Format(time.DateTime), a.dataDir)
			return err
		},
	}
	cmd.Flags().StringVar(&hostname, "hostname", "", "`name` of this machine (default its host name)")
	return cmd
}

// quietLogger says what goes wrong, and not what goes well.
func quietLogger(a *app) *slog.Logger {
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelError}))
}

const goneFlag = "i-know-the-others-are-gone"

func newRecoverCommand(a *app) *cobra.Command {
	var gone bool
	var listen []string
	cmd := &cobra.Command{
		Use:   "recover --data-dir DIR",
		Short: "Go on with one node after a majority of the voters is lost for good",
		Long: `For a mesh that lost a majority of its voters for good, and so takes no writes. Run it on
the data dir of a stopped node. It shows what the log there holds, asks after the
other replicas for some seconds, and refuses as long as enough of them could be there. Then it asks you to type the id of
the mesh, and makes this node its only replica. The others are banned.

What the lost nodes acknowledged and this node had not heard of is lost. With several
nodes left look at all of them first (--json --dry-run), and take the one with the highest last term and,
among those, the highest last entry. If lost machines come back with their data dirs they must not be
started: there would be two meshes. Empty their data dirs and invite them.`,
		Example: `  labmesh recover --data-dir /srv/labmesh
  labmesh recover --data-dir /srv/labmesh --` + goneFlag,
		Args: args(cobra.NoArgs, "it takes no arguments"),
	}
	var dry bool
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if a.dataDir == "" {
			return usagef("recover: name the data dir of the stopped node, by --data-dir")
		}
		if _, err := os.Stat(a.dataDir); err != nil {
			return usagef("recover: %w", err)
		}
		r, err := node.Recover(cmd.Context(), node.Config{DataDir: a.dataDir, MeshListen: listen, Logger: quietLogger(a)}, func(r node.Recovery) error {
			if err := a.showRecovery(r); err != nil || gone {
				return err
			}
			if dry {
				return errDryRun
			}
			return a.confirmRecovery(r)
		})
		if errors.Is(err, errDryRun) {
			return nil
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.err, "Node %s is now the only replica of mesh %s. Next: labmesh up --data-dir %s, then labmesh invite for other machines.\n", r.Node, r.Mesh, a.dataDir)
		return err
	}
	cmd.Flags().BoolVar(&gone, goneFlag, false, "do not ask: the other voters are lost for good, and will not be started again")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "show what is there, and change nothing")
	cmd.Flags().StringArrayVar(&listen, "mesh-listen", nil, "`multiaddr` to ask from; as of labmesh up")
	cmd.MarkFlagsMutuallyExclusive(goneFlag, "dry-run")
	return cmd
}

var errDryRun = errors.New("nothing is changed")

func (a *app) showRecovery(r node.Recovery) error {
	if a.json {
		return a.printJSON(r)
	}
	fmt.Fprintf(a.out, "Mesh %s, node %s\nThe log here ends at entry %d of term %d; the newest snapshot is at %d.\nReplicas, of which %d voters are needed:\n", r.Mesh, r.Node, r.Last, r.LastTerm, r.Snapshot, r.Quorum)
	names := map[labmesh.NodeID]string{}
	for _, m := range r.Members {
		names[m.Node] = m.Hostname
	}
	for _, s := range r.Servers {
		kind, is := "learner", "does not answer"
		if s.Voter {
			kind = "voter"
		}
		if s.ID == r.Node {
			is = "this node"
		}
		if _, err := fmt.Fprintf(a.out, "  %s  %s  %s  %s\n", s.ID, kind, printable(names[s.ID]), is); err != nil {
			return err
		}
	}
	return nil
}

// confirmRecovery has a person type the id of the mesh.
func (a *app) confirmRecovery(r node.Recovery) error {
	fmt.Fprintf(a.err, "\nAre the others lost for good, and will they never be started again with their data?\nThen type the id of the mesh (%s): ", r.Mesh)
	line, _ := bufio.NewReader(a.in).ReadString('\n') // what was typed is all there is
	if strings.TrimSpace(line) != string(r.Mesh) {
		return usagef("nothing is changed: that is not the id of the mesh; where nobody can type, say --%s", goneFlag)
	}
	return nil
}
