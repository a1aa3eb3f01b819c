package keeper

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Names in the directory of running programs.
const (
	socketName = filePrefix + "sock"
	lockName   = filePrefix + "lock"  // held by the keeper as long as it lives; holds its process id
	logName    = filePrefix + "log"   // what it had to say before it died
	endedName  = filePrefix + "ended" // how those programs ended that nobody asked for in time
)

// How the body of a packet travels.
const (
	inline byte = iota
	inMemory
)

// conn is one end of the socket: packets, with open files beside them. Sending
// is safe for many goroutines; receiving is for one.
type conn struct {
	file *os.File // nil in the keeper, which blocks
	fd   int

	mu     sync.Mutex
	out    []byte
	closed bool

	in  []byte
	oob []byte
}

// newConn takes fd over. A polled one does not hold a thread while it waits.
func newConn(fd int, polled bool) (*conn, error) {
	c := &conn{fd: fd, in: make([]byte, packetBytesMax+1), oob: make([]byte, unix.CmsgSpace(4*filesMax))}
	if err := unix.SetNonblock(fd, polled); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if polled {
		c.file = os.NewFile(uintptr(fd), socketName)
	}
	return c, nil
}

// trusted reports whether the other end belongs to this user.
func trusted(fd int) error {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return fmt.Errorf("ask who is at the other end: %w", err)
	}
	if int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d is at the other end, not %d", cred.Uid, os.Geteuid())
	}
	return nil
}

// send sends m and copies of files.
func (c *conn) send(m *message, files ...int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return os.ErrClosed
	}
	c.out = m.appendTo(append(c.out[:0], inline))
	packet := c.out
	if len(packet) > packetBytesMax {
		body, err := memory(packet[1:])
		if err != nil {
			return err
		}
		defer unix.Close(body)
		packet, files = []byte{inMemory}, append([]int{body}, files...)
		c.out = nil
	}
	var oob []byte
	if len(files) > 0 {
		oob = unix.UnixRights(files...)
	}
	return c.each(true, func() error { return unix.Sendmsg(c.fd, packet, oob, nil, unix.MSG_NOSIGNAL) })
}

// receive waits for a message. The files are the caller's to close.
func (c *conn) receive() (m message, files []int, err error) {
	var n, oobn, flags int
	err = c.each(false, func() (err error) {
		n, oobn, flags, _, err = unix.Recvmsg(c.fd, c.in, c.oob, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err != nil {
		return m, nil, err
	}
	if oobn > 0 {
		files = rights(c.oob[:oobn])
	}
	if n == 0 {
		closeAll(files)
		return m, nil, io.EOF
	}
	body := c.in[1:n]
	switch {
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = errMessage
	case c.in[0] == inMemory && len(files) > 0:
		body, err = remembered(files[0])
		unix.Close(files[0])
		files = files[1:]
	case c.in[0] != inline:
		err = errMessage
	}
	if err == nil {
		m, err = decode(body)
	}
	if err != nil {
		closeAll(files)
		return m, nil, err
	}
	return m, files, nil
}

// each repeats a call until it is no longer to be repeated.
func (c *conn) each(write bool, call func() error) error {
	var err error
	try := func() bool {
		for {
			if err = call(); !errors.Is(err, unix.EINTR) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	}
	if c.file == nil {
		try()
		return err
	}
	raw, rerr := c.file.SyscallConn()
	if rerr != nil {
		return rerr
	}
	wait := raw.Read
	if write {
		wait = raw.Write
	}
	if werr := wait(func(uintptr) bool { return try() }); werr != nil {
		return werr
	}
	return err
}

// close ends the connection. A receive under way returns.
func (c *conn) close() {
	if c.file != nil {
		_ = unix.Shutdown(c.fd, unix.SHUT_RDWR) // wakes a sender that waits
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	if c.file != nil {
		c.file.Close()
	} else {
		unix.Close(c.fd)
	}
}

// rights are the files that came with a packet.
func rights(oob []byte) (files []int) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err == nil {
			files = append(files, fds...)
		}
	}
	return files
}

func closeAll(files []int) {
	for _, fd := range files {
		unix.Close(fd)
	}
}

// memory is a file in memory that holds b.
func memory(b []byte) (int, error) {
	if len(b) > messageBytesMax {
		return -1, unix.E2BIG
	}
	fd, err := unix.MemfdCreate("labmesh", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, err
	}
	for off := 0; off < len(b); {
		n, err := unix.Pwrite(fd, b[off:], int64(off))
		if err != nil {
			unix.Close(fd)
			return -1, err
		}
		off += n
	}
	return fd, nil
}

// remembered is what such a file holds.
func remembered(fd int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > messageBytesMax {
		return nil, errMessage
	}
	b := make([]byte, st.Size)
	for off := 0; off < len(b); {
		n, err := unix.Pread(fd, b[off:], int64(off))
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, errMessage
		}
		off += n
	}
	return b, nil
}

// address is the socket in dir, by a name that is never too long for a socket.
// It is good while the directory is open.
func address(dir string) (addr *unix.SockaddrUnix, done func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	return &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) + "/" + socketName}, func() { f.Close() }, nil
}

// dial connects to the keeper of dir.
func dial(dir string) (*conn, error) {
	addr, done, err := address(dir)
	if err != nil {
		return nil, err
	}
	defer done()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err = unix.Connect(fd, addr); err == nil {
		err = trusted(fd)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return newConn(fd, true)
}

// listen makes the socket of dir, which nobody may have.
func listen(dir string) (int, error) {
	path := filepath.Join(dir, socketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return -1, err
	}
	addr, done, err := address(dir)
	if err != nil {
		return -1, err
	}
	defer done()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err = unix.Bind(fd, addr); err == nil {
		err = errors.Join(os.Chmod(path, 0o600), unix.Listen(fd, 4)) // the directory is this user's alone
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
