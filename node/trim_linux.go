package node

import (
	"debug/elf"
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// trim gives back memory that only the start needed: free pages of the heap, and
// the pages of the program's own code and constants, most of which nothing but
// initialisation has touched. What is needed again comes back from the page
// cache, or the file, at the next touch: these segments are never written to. A
// position-independent program is left as it is, its segments not being where
// the file says.
func trim() error {
	debug.FreeOSMemory()
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("trim memory: %w", err)
	}
	defer f.Close()
	if f.Type != elf.ET_EXEC {
		return nil
	}
	page := uint64(os.Getpagesize())
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD || p.Flags&elf.PF_W != 0 {
			continue
		}
		from := (p.Vaddr + page - 1) / page * page
		to := (p.Vaddr + p.Filesz) / page * page
		if to <= from {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, uintptr(from), uintptr(to-from), unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("trim memory: %w", errno)
		}
	}
	return nil
}
