package keeper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// version is of the protocol. An agent that meets a keeper of another version
// has it end.
const version = 3

// The files of a keeper in its directory begin with one of these.
const (
	filePrefix  = "keeper."
	spoolPrefix = "spool-"
)

// Owns reports whether a file of that name in a keeper's directory is the keeper's.
func Owns(name string) bool {
	return strings.HasPrefix(name, filePrefix) || strings.HasPrefix(name, spoolPrefix)
}

// Bounds on messages.
const (
	packetBytesMax  = 64 << 10 // what is larger travels in a memfd
	messageBytesMax = 8 << 20
	itemsMax        = 1 << 16 // of one list
	filesMax        = 8       // with one message
)

// kind says what a message is.
type kind byte

// The agent's messages, then the keeper's.
const (
	kindHello   kind = 1 + iota // version
	kindQuit                    // end everything; the same in all versions
	kindSpawn                   // tidy, spawn; files: see spawnFiles
	kindSignal                  // id, signal
	kindClaim                   // id
	kindTidy                    // tidy
	kindBuffers                 // a file that is kept for the agent's next lives
	kindLease                   // a file: see leasePage

	kindKnown   // version, whether it is the last, when the lease was renewed, programs; files: with the last, the buffers of earlier lives
	kindExits   // exits
	kindClaimed // program; files: the two pipes, unless it is said to have none
)

// Rlimit is a limit as setrlimit(2) has it.
type Rlimit struct {
	Resource  int
	Soft, Max uint64
}

// Spawn is a program to be started.
type Spawn struct {
	ID      uint64 // made by [Client.Spawn]
	Attempt string // which it belongs to; "" for none: nobody will ask for it again
	Ordinal int    // which of the attempt's programs it is
	Sum     uint64 // of what is run, to tell it from another
	Meta    string // the agent's own, for its next life

	Path    string
	Args    []string
	Env     []string // the last of it marks the program's processes
	Dir     string
	Nice    int      // for its process group
	Umask   int      // -1 leaves the keeper's
	Rlimits []Rlimit // set as soon as it has started
	// Outlasts is how long after the newest renewal of the agent's lease it may go on (see [Client.Renewed]),
	// whether the agent lives or not. 0 has it go on for the window after the agent is gone.
	Outlasts time.Duration
	V1Base   []string // files of version 1 cgroups, to which the starting thread writes "0" once: it stays there
	V1Tasks  []string // files of version 1 cgroups, to which the starting thread writes "0" before the start
	V1Back   []string // the same of where it writes it afterwards

	Cgroup bool // a directory of a version 2 cgroup is among the files
	Stdin  bool // and so is its stdin; without it there is nothing to read
}

// Exit is how a program ended.
type Exit struct {
	ID     uint64
	Errno  int           // why it could not be started, or 0
	Status uint32        // as wait(2) gives it
	User   time.Duration // of it and those children it waited for
	System time.Duration
	MaxRSS int64 // KiB; 0 when it was no more than the keeper's own
	Asked  bool  // an agent had it signalled
	Cut    bool  // the keeper killed it, as the agent's lease was not renewed
	Lost   bool  // the keeper is gone, and how the program ended with it
}

// Program is what the keeper knows of a program that it was asked to start.
type Program struct {
	ID      uint64
	Attempt string
	Ordinal int
	Sum     uint64
	Meta    string
	Age     time.Duration // since its start
	Ended   bool
	Exit    Exit
	Spools  []string // directories with what it printed while no agent was there, oldest first
	NoPipes bool     // nothing can be read of it any more
}

// tidy is what the agent has no more need of.
type tidy struct {
	drained []uint64 // programs whose output was read to its end
	forget  []string // attempts whose end is known to the mesh
}

func (t *tidy) empty() bool { return len(t.drained)+len(t.forget) == 0 }

// message is one message, with the fields that its kind has.
type message struct {
	kind     kind
	version  int
	last     bool
	id       uint64
	signal   int
	tidy     tidy
	spawn    Spawn
	renewed  time.Duration
	programs []Program
	exits    []Exit
}

// errMessage is what every failure to decode is.
var errMessage = errors.New("not a message of the keeper's protocol")

// encoder appends. All numbers are varints, all texts have their length before them.
type encoder []byte

func (e *encoder) uint(v uint64) { *e = binary.AppendUvarint(*e, v) }
func (e *encoder) int(v int64)   { *e = binary.AppendVarint(*e, v) }
func (e *encoder) bool(v bool)   { *e = append(*e, map[bool]byte{true: 1}[v]) }
func (e *encoder) text(s string) { e.uint(uint64(len(s))); *e = append(*e, s...) }
func (e *encoder) texts(s []string) {
	e.uint(uint64(len(s)))
	for _, v := range s {
		e.text(v)
	}
}

// appendTo encodes m behind b.
func (m *message) appendTo(b []byte) []byte {
	e := encoder(append(b, byte(m.kind)))
	switch m.kind {
	case kindHello:
		e.int(int64(m.version))
	case kindSpawn:
		e.tidy(&m.tidy)
		e.spawn(&m.spawn)
	case kindSignal:
		e.uint(m.id)
		e.int(int64(m.signal))
	case kindClaim:
		e.uint(m.id)
	case kindTidy:
		e.tidy(&m.tidy)
	case kindKnown:
		e.int(int64(m.version))
		e.bool(m.last)
		e.int(int64(m.renewed))
		e.programs(m.programs)
	case kindClaimed:
		e.programs(m.programs)
	case kindExits:
		e.uint(uint64(len(m.exits)))
		for i := range m.exits {
			e.exit(&m.exits[i])
		}
	}
	return e
}

func (e *encoder) tidy(t *tidy) {
	e.uint(uint64(len(t.drained)))
	for _, id := range t.drained {
		e.uint(id)
	}
	e.texts(t.forget)
}

func (e *encoder) spawn(s *Spawn) {
	e.uint(s.ID)
	e.text(s.Attempt)
	e.int(int64(s.Ordinal))
	e.uint(s.Sum)
	e.text(s.Meta)
	e.text(s.Path)
	e.texts(s.Args)
	e.texts(s.Env)
	e.text(s.Dir)
	e.int(int64(s.Nice))
	e.int(int64(s.Umask))
	e.uint(uint64(len(s.Rlimits)))
	for _, l := range s.Rlimits {
		e.int(int64(l.Resource))
		e.uint(l.Soft)
		e.uint(l.Max)
	}
	e.int(int64(s.Outlasts))
	e.texts(s.V1Base)
	e.texts(s.V1Tasks)
	e.texts(s.V1Back)
	e.bool(s.Cgroup)
	e.bool(s.Stdin)
}

func (e *encoder) programs(ps []Program) {
	e.uint(uint64(len(ps)))
	for i := range ps {
		p := &ps[i]
		e.uint(p.ID)
		e.text(p.Attempt)
		e.int(int64(p.Ordinal))
		e.uint(p.Sum)
		e.text(p.Meta)
		e.int(int64(p.Age))
		e.bool(p.Ended)
		e.exit(&p.Exit)
		e.texts(p.Spools)
		e.bool(p.NoPipes)
	}
}

func (e *encoder) exit(x *Exit) {
	e.uint(x.ID)
	e.int(int64(x.Errno))
	e.uint(uint64(x.Status))
	e.int(int64(x.User))
	e.int(int64(x.System))
	e.int(x.MaxRSS)
	e.bool(x.Asked)
	e.bool(x.Cut)
}

// decoder takes from the front. After a failure it gives zero values.
type decoder struct {
	b   []byte
	all string // the whole message, of which texts are parts: one copy in place of one for each
	bad bool
}

func (d *decoder) fail() { d.b, d.bad = nil, true }

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bool() bool {
	if len(d.b) == 0 || d.b[0] > 1 {
		d.fail()
		return false
	}
	v := d.b[0] == 1
	d.b = d.b[1:]
	return v
}

func (d *decoder) text() string {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.fail()
		return ""
	}
	at := len(d.all) - len(d.b)
	d.b = d.b[n:]
	return d.all[at : at+int(n)] //nolint:gosec // n is no more than there is
}

// count is the length of a list whose items take at least size bytes each.
func (d *decoder) count(size int) int {
	n := d.uint()
	if n > itemsMax || n > uint64(len(d.b)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) texts() []string {
	n := d.count(1)
	if n == 0 {
		return nil
	}
	s := make([]string, n)
	for i := range s {
		s[i] = d.text()
	}
	return s
}

// decode reads a message. What it returns shares nothing with b; its texts share
// one copy of the message, and who keeps one for long clones it.
func decode(b []byte) (m message, err error) {
	if len(b) == 0 {
		return m, errMessage
	}
	m.kind = kind(b[0])
	d := decoder{b: b[1:], all: string(b[1:])}
	switch m.kind {
	case kindQuit:
		return m, nil // whatever may follow
	case kindBuffers, kindLease:
	case kindHello:
		m.version = int(d.int())
		d.b = nil // whatever else another version says
	case kindSpawn:
		d.tidy(&m.tidy)
		d.spawn(&m.spawn)
	case kindSignal:
		m.id = d.uint()
		m.signal = int(d.int())
	case kindClaim:
		m.id = d.uint()
	case kindTidy:
		d.tidy(&m.tidy)
	case kindKnown:
		if m.version = int(d.int()); m.version != version && !d.bad {
			return m, nil
		}
		m.last = d.bool()
		m.renewed = time.Duration(d.int())
		m.programs = d.programs()
	case kindClaimed:
		if m.programs = d.programs(); len(m.programs) != 1 {
			d.fail()
		}
	case kindExits:
		for range d.count(8) {
			m.exits = append(m.exits, d.exit())
		}
	default:
		return message{}, fmt.Errorf("%w: kind %d", errMessage, m.kind)
	}
	if d.bad || len(d.b) > 0 {
		return message{}, fmt.Errorf("%w: kind %d is cut off or too long", errMessage, m.kind)
	}
	return m, nil
}

func (d *decoder) tidy(t *tidy) {
	for range d.count(1) {
		t.drained = append(t.drained, d.uint())
	}
	t.forget = d.texts()
}

func (d *decoder) spawn(s *Spawn) {
	s.ID = d.uint()
	s.Attempt = d.text()
	s.Ordinal = int(d.int())
	s.Sum = d.uint()
	s.Meta = d.text()
	s.Path = d.text()
	s.Args = d.texts()
	s.Env = d.texts()
	s.Dir = d.text()
	s.Nice = int(d.int())
	s.Umask = int(d.int())
	for range d.count(3) {
		s.Rlimits = append(s.Rlimits, Rlimit{int(d.int()), d.uint(), d.uint()})
	}
	s.Outlasts = time.Duration(d.int())
	s.V1Base = d.texts()
	s.V1Tasks = d.texts()
	s.V1Back = d.texts()
	s.Cgroup = d.bool()
	s.Stdin = d.bool()
}

func (d *decoder) programs() (ps []Program) {
	for range d.count(17) {
		ps = append(ps, Program{
			ID: d.uint(), Attempt: d.text(), Ordinal: int(d.int()), Sum: d.uint(), Meta: d.text(), Age: time.Duration(d.int()),
			Ended: d.bool(), Exit: d.exit(), Spools: d.texts(), NoPipes: d.bool(),
		})
	}
	return ps
}

func (d *decoder) exit() Exit {
	return Exit{
		ID: d.uint(), Errno: int(d.int()), Status: uint32(d.uint()), User: time.Duration(d.int()), System: time.Duration(d.int()), //nolint:gosec // wrapped is as good as refused
		MaxRSS: d.int(), Asked: d.bool(), Cut: d.bool(),
	}
}
