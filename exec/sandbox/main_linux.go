package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"labmesh"
)

// Exit codes, as shells give them.
const (
	exitNotMade = 125 // the sandbox could not be made
	exitNotRun  = 126 // the program could not be run in it
)

// statusFD is where the inner process finds the pipe to the outer one.
const statusFD = 3

// status is what the inner process says of the program.
type status struct {
	Started bool   `json:"started"`
	Wait    uint32 `json:"wait"`            // as wait(2) gives it
	Fault   string `json:"fault,omitempty"` // why it was not started
	Program bool   `json:"program,omitempty"`
}

// Main plays a part of a sandbox and returns the exit code. args are those that
// follow [Box].Self. It does not return when the program was ended by a signal.
func Main(args []string) int {
	// Both parts start a child that is to die with them; to the kernel that is the
	// thread that started it.
	runtime.LockOSThread()
	switch {
	case len(args) >= 4 && args[0] == Outer:
		return outer(args[1], labmesh.Sandbox(args[2]), args[3:])
	case len(args) >= 4 && args[0] == Inner:
		return inner(args[1] == "new", args[2], args[3:])
	}
	fmt.Fprintln(os.Stderr, "labmesh: this part of labmesh is for its own use")
	return 2
}

// harmless are the signals that the whole process group gets and that are the
// program's to act on.
func harmless() []os.Signal {
	return []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE, syscall.SIGALRM}
}

func outer(fault string, level labmesh.Sandbox, argv []string) int {
	// bwrap must not end by them either: it starts with them ignored.
	signal.Ignore(harmless()...)
	r, w, err := os.Pipe()
	if err != nil {
		return notMade(fault, err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdin, os.Stdout, os.Stderr, []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if level == labmesh.SandboxNoNetwork {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC
		identity(cmd.SysProcAttr)
	}
	if err := cmd.Start(); err != nil {
		return notMade(fault, fmt.Errorf("make namespaces: %w", err))
	}
	w.Close()
	said, _ := io.ReadAll(io.LimitReader(r, faultBytesMax)) // until the inner process has ended
	_ = cmd.Wait()
	var s status
	switch err := json.Unmarshal(said, &s); {
	case err == nil && s.Fault != "":
		Failure{s.Program, s.Fault}.leave(fault)
		return map[bool]int{true: exitNotRun, false: exitNotMade}[s.Program]
	case err == nil:
		return endAs(syscall.WaitStatus(s.Wait))
	}
	ws, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ws.Signaled() {
		return notMade(fault, fmt.Errorf("%s ended with %v", argv[0], cmd.ProcessState))
	}
	return endAs(ws) // killed, and the program with it
}

func notMade(fault string, err error) int {
	Failure{Message: err.Error()}.leave(fault)
	return exitNotMade
}

// identity maps the ids of the new user namespace to the same outside. Who may,
// which is root, maps all, so that the files of others stay what they are.
func identity(attr *syscall.SysProcAttr) {
	uid, gid, size := os.Getuid(), os.Getgid(), 1
	if uid == 0 {
		if all, err := os.ReadFile("/proc/self/uid_map"); err == nil && len(strings.Fields(string(all))) == 3 {
			_, _ = fmt.Sscan(strings.Fields(string(all))[2], &size)
			uid, gid = 0, 0
			size = min(size, 1<<31-1)
			attr.GidMappingsEnableSetgroups = true
		}
	} else {
		// To bring up a device and to mount are rights that a program loses at its
		// start unless they are handed on.
		attr.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN}
	}
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: size}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: size}}
}

// endAs ends this process as ws says that another ended.
func endAs(ws syscall.WaitStatus) int {
	if !ws.Signaled() {
		return ws.ExitStatus()
	}
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) // the program has left its own
	// Past the runtime, which would print a trace of ours for SIGSEGV and the like.
	var usual [4]uint64 // a struct sigaction that says: as usual
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(ws.Signal()), uintptr(unsafe.Pointer(&usual)), 0, 8, 0, 0)
	_ = unix.Kill(os.Getpid(), ws.Signal())
	select {} // it arrives
}

func inner(fresh bool, path string, args []string) int {
	pipe := os.NewFile(statusFD, "status")
	unix.CloseOnExec(statusFD)
	say := func(s status) {
		_ = json.NewEncoder(pipe).Encode(s) // the outer one has our exit code else
	}
	got := make(chan os.Signal, 1)
	signal.Notify(got, harmless()...) // taken and dropped; at the program's start they are as usual again
	if fresh {
		if err := furnish(); err != nil {
			say(status{Fault: err.Error()})
			return exitNotMade
		}
	}
	proc, err := os.StartProcess(path, args, &os.ProcAttr{Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}})
	if err != nil {
		var e *os.PathError
		if errors.As(err, &e) {
			err = e.Err
		}
		say(status{Fault: fmt.Sprintf("%s cannot be run in the sandbox: %v", path, err), Program: true})
		return exitNotRun
	}
	for { // reap everybody: orphans come to the first process
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			say(status{Fault: fmt.Sprintf("wait for %s: %v", path, err)})
			return exitNotMade
		case pid == proc.Pid:
			say(status{Started: true, Wait: uint32(ws)})
			return 0
		}
	}
}

// furnish makes new namespaces fit to live in.
func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to the sandbox: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := loopback(); err != nil {
		return fmt.Errorf("bring up the loopback device: %w", err)
	}
	return dropRights()
}

func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, lo); err != nil {
		return err
	}
	lo.SetUint16(lo.Uint16() | unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// dropRights takes from this thread, which starts the program, the rights that
// were handed on to it.
func dropRights() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop rights: %w", err)
	}
	return nil
}
