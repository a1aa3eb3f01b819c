package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"labmesh/lab"
)

// meshPort is where every node in a network listens: each has an address of its own.
const meshPort = 4080

// subnet is the network of all hosts, inner what is behind a router.
const (
	subnet = "10.77.0."
	inner  = "10.78.0."
)

// holder keeps a network namespace: it is there as long as the holder or any
// other process in it lives.
type holder struct{ cmd *exec.Cmd }

func hold() (*holder, error) {
	cmd := exec.Command("sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	return &holder{cmd}, nil
}

func (h *holder) path() string { return fmt.Sprintf("/proc/%d/ns/net", h.cmd.Process.Pid) }

// enter is the command that becomes the command behind it, inside.
func (h *holder) enter() []string { return []string{"nsenter", "--net=" + h.path()} }

// run runs a program inside, with input.
func (h *holder) run(input string, line ...string) error {
	line = append(h.enter(), line...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(line[2:], " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (h *holder) end() error {
	err := h.cmd.Process.Kill()
	_ = h.cmd.Wait() // it was killed
	return err
}

// Network is an Ethernet on this machine: a switch, and hosts that nothing
// outside it can reach. Its methods are for one goroutine at a time, but for [Host.Dial].
type Network struct {
	bridge *holder
	hosts  []*Host
}

// Host is a machine on a network.
type Host struct {
	Address string // what other hosts know it by

	holder *holder
	router *holder // what it is behind; nil when it is on the switch itself
}

// NewNetwork makes a network without hosts. It fails where namespaces, bridges or
// nftables cannot be had.
func NewNetwork() (*Network, error) {
	for _, program := range []string{"ip", "nft", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("make a network: %w", err)
		}
	}
	bridge, err := hold()
	if err != nil {
		return nil, err
	}
	n := &Network{bridge: bridge}
	if err := bridge.run("link add switch type bridge\nlink set switch up\n", "ip", "-batch", "-"); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// Close ends the network. Processes that still run on its hosts stay, with nobody to talk to.
func (n *Network) Close() error {
	var errs []error
	for _, h := range n.hosts {
		errs = append(errs, h.holder.end())
		if h.router != nil {
			errs = append(errs, h.router.end())
		}
	}
	if n.bridge != nil {
		errs = append(errs, n.bridge.end())
	}
	n.hosts, n.bridge = nil, nil
	return errors.Join(errs...)
}

// Host is the host of that index, in the order in which they were added.
func (n *Network) Host(i int) *Host { return n.hosts[i] }

// Add puts one more host on the switch.
func (n *Network) Add() (*Host, error) {
	h := &Host{Address: subnet + strconv.Itoa(len(n.hosts)+1)}
	var err error
	if h.holder, err = hold(); err != nil {
		return nil, err
	}
	n.hosts = append(n.hosts, h)
	if err := n.plug(h.holder, h.Address); err != nil {
		return nil, err
	}
	return h, h.rules()
}

// AddBehind adds a host behind a router that translates addresses, as at home: it
// reaches all others, and none of them can call it.
func (n *Network) AddBehind() (*Host, error) {
	h := &Host{Address: subnet + strconv.Itoa(len(n.hosts)+1)}
	var err error
	if h.router, err = hold(); err != nil {
		return nil, err
	}
	if h.holder, err = hold(); err != nil {
		return nil, errors.Join(err, h.router.end())
	}
	n.hosts = append(n.hosts, h)
	if err := n.plug(h.router, h.Address); err != nil {
		return nil, err
	}
	pid := strconv.Itoa(h.holder.cmd.Process.Pid)
	err = errors.Join(
		h.router.run("link add in type veth peer name eth0 netns "+pid+"\naddr add "+inner+"1/24 dev in\nlink set in up\n", "ip", "-batch", "-"),
		h.router.run("", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"),
		h.router.run("table ip nat { chain out { type nat hook postrouting priority srcnat; oifname eth0 masquerade; }; }\n"+
			"table ip filter { chain in { type filter hook forward priority filter; iifname eth0 ct state new drop; }; }\n", "nft", "-f", "-"),
		h.holder.run("link set lo up\naddr add "+inner+"2/24 dev eth0\nlink set eth0 up\nroute add default via "+inner+"1\n", "ip", "-batch", "-"),
	)
	if err != nil {
		return nil, err
	}
	return h, h.rules()
}

// plug connects a namespace to the switch, under an address.
func (n *Network) plug(h *holder, address string) error {
	port := "port" + strconv.Itoa(len(n.hosts))
	pid := strconv.Itoa(h.cmd.Process.Pid)
	return errors.Join(
		n.bridge.run("link add "+port+" type veth peer name eth0 netns "+pid+"\nlink set "+port+" master switch\nlink set "+port+" up\n", "ip", "-batch", "-"),
		h.run("link set lo up\naddr add "+address+"/24 dev eth0\nlink set eth0 up\n", "ip", "-batch", "-"),
	)
}

// rules lays down what faults change: addresses that are not heard, and what share
// of what comes in is lost. They are where a host's own packets arrive, so a host
// hears nothing of its peer while the peer may hear all of it.
func (h *Host) rules() error {
	return h.holder.run(`table inet chaos {
	set cut { type ipv4_addr; }
	chain in { type filter hook input priority filter; iifname lo accept; ip saddr @cut drop; jump loss; }
	chain loss { }
}
`, "nft", "-f", "-")
}

// Deaf has the host hear nothing more of others. They go on hearing it: for a line
// that is cut both ways, both must be deaf ([Network.Cut]).
func (h *Host) Deaf(to ...*Host) error {
	if len(to) == 0 {
		return nil
	}
	addresses := make([]string, len(to))
	for i, o := range to {
		addresses[i] = o.Address
	}
	return h.holder.run("add element inet chaos cut { "+strings.Join(addresses, ", ")+" }\n", "nft", "-f", "-")
}

// Lossy drops a share of what comes in to the host, in percent.
func (h *Host) Lossy(percent int) error {
	return h.holder.run("flush chain inet chaos loss\nadd rule inet chaos loss numgen random mod 100 < "+strconv.Itoa(percent)+" drop\n", "nft", "-f", "-")
}

// Slow bounds what the host sends to so many kbit/s.
func (h *Host) Slow(kbits int) error {
	return h.holder.run("", "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", strconv.Itoa(kbits)+"kbit", "burst", "16kb", "latency", "400ms")
}

// Heal undoes all that was done to the host's lines.
func (h *Host) Heal() error {
	_ = h.holder.run("", "tc", "qdisc", "del", "dev", "eth0", "root") // fails where it was not slow
	return h.holder.run("flush set inet chaos cut\nflush chain inet chaos loss\n", "nft", "-f", "-")
}

// Heal undoes all that was done to any line.
func (n *Network) Heal() error {
	var errs []error
	for _, h := range n.hosts {
		errs = append(errs, h.Heal())
	}
	return errors.Join(errs...)
}

// Cut parts two groups of hosts: neither hears the other.
func (n *Network) Cut(a, b []*Host) error {
	var errs []error
	for _, h := range a {
		errs = append(errs, h.Deaf(b...))
	}
	for _, h := range b {
		errs = append(errs, h.Deaf(a...))
	}
	return errors.Join(errs...)
}

// Place puts the node of that index on a host of its own; it is for [lab.Config].
func (n *Network) Place(i int) (lab.Place, error) {
	for len(n.hosts) <= i {
		if _, err := n.Add(); err != nil {
			return lab.Place{}, err
		}
	}
	return n.hosts[i].Place(), nil
}

// Place is where a node runs that is put on the host.
func (h *Host) Place() lab.Place {
	own := h.Address
	if h.router != nil {
		own = inner + "2"
	}
	return lab.Place{Run: h.holder.enter(), Listen: fmt.Sprintf("/ip4/%s/tcp/%d", own, meshPort), Dial: h.Dial}
}

// Dial connects from the host to an address, such as one on its own loopback. It
// may be called by many goroutines.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("dial from %s: %w", h.Address, err)
	}
	defer home.Close()
	there, err := os.Open(h.holder.path())
	if err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("dial from %s: %w", h.Address, err)
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("dial from %s: %w", h.Address, err)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address) // an address of digits is dialled by this thread
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		if conn != nil {
			conn.Close()
		}
		return nil, fmt.Errorf("dial from %s: come back: %w", h.Address, back) // the thread stays locked, and ends with its goroutine
	}
	runtime.UnlockOSThread()
	return conn, err
}

// others are all hosts but one.
func (n *Network) others(i int) []*Host {
	return slices.Delete(slices.Clone(n.hosts), i, i+1)
}

// Break does what a fault of a line says to the lines of the host of that index.
func (n *Network) Break(kind Kind, i int) error {
	h, others := n.hosts[i], n.others(i)
	switch kind {
	case Cut:
		return n.Cut([]*Host{h}, others)
	case Deafen:
		return h.Deaf(others...)
	case Mute:
		var errs []error
		for _, o := range others {
			errs = append(errs, o.Deaf(h))
		}
		return errors.Join(errs...)
	case Bridge:
		return n.Cut(others[:len(others)/2], others[len(others)/2:])
	case Lossy:
		return h.Lossy(lossPercent)
	case Narrow:
		return h.Slow(narrowKbits)
	}
	return fmt.Errorf("%s is no fault of a line", kind)
}
