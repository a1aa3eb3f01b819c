package mesh

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"labmesh"
)

func TestBookSurvivesARestart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), BookFile)
	b, err := openBook(path)
	if err != nil {
		t.Fatal(err)
	}
	b.put("n", []string{"old"}, time.Unix(1, 0))
	b.put("n", []string{"new", "old"}, time.Unix(2, 0))
	if err := b.save(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, err %v", info.Mode(), err)
	}
	again, err := openBook(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.addrs("n"); !slices.Equal(got, []string{"new", "old"}) {
		t.Errorf("addresses after the restart: %v", got)
	}
}

func TestDamagedBookIsBegunAnew(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), BookFile)
	if err := os.WriteFile(path, []byte(`{"peers": {"n": `), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := openBook(path)
	if err == nil {
		t.Error("nobody is told that the book was damaged")
	}
	b.put("n", []string{"a"}, time.Unix(1, 0))
	if err := b.save(); err != nil {
		t.Fatal(err)
	}
	if again, err := openBook(path); err != nil || len(again.addrs("n")) != 1 {
		t.Errorf("after it was begun anew: %v, %v", again.addrs("n"), err)
	}
}

func TestBookIsBounded(t *testing.T) {
	t.Parallel()
	b, _ := openBook("")
	for i := range bookNodesMax + 10 {
		b.put(labmesh.NodeID(fmt.Sprint(i)), []string{"a"}, time.Unix(int64(i), 0))
	}
	if len(b.pages) != bookNodesMax || b.addrs("0") != nil || b.addrs(labmesh.NodeID(fmt.Sprint(bookNodesMax+9))) == nil {
		t.Errorf("%d pages; the oldest should have gone and the newest be there", len(b.pages))
	}
	for i := range 100 {
		b.put("n", []string{fmt.Sprint(i)}, time.Unix(1e6, 0))
	}
	if got := b.addrs("n"); len(got) != bookAddrsMax || got[0] != "99" {
		t.Errorf("addresses of one node: %v", got)
	}
}
