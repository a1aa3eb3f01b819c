package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"labmesh"
)

// Conversations are plays with real messages, in testdata. Each line is an act:
//
//	open 1 a [path]   open socket 1 to node a
//	1 C {…}           the worker says this on socket 1
//	1 S {…}           the node says this, and nothing before it; "*" stands for any text
//	1 silent 2s       the node says nothing for so long
//	1 closed          the node closes the socket
//	close 1           the worker closes it; drop 1 cuts it without a word
//	wait 2s           time passes
//	task t [config]   somebody submits a custom task
//	cancel t          somebody cancels it
//	phase t running   the task is in that phase; attempts t 2 its newest attempt has that number
//	worker w active a it has that status, and is attached there
//	leader no|yes     the mesh loses its leader, or has one again
//	stop a            node a stops; start a starts it again
type play struct {
	t       *testing.T
	mesh    *fakeMesh
	doors   map[string]*door
	sockets map[string]*wire
	line    string
}

// wire is the worker's end of a socket.
type wire struct {
	conn *websocket.Conn
	said chan string // closed when the socket is
}

func TestConversations(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d conversations, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			f, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				p := &play{t: t, mesh: newFakeMesh(), doors: map[string]*door{}, sockets: map[string]*wire{}}
				p.doors["a"], p.doors["b"] = open(t, p.mesh, "a"), open(t, p.mesh, "b")
				in := bufio.NewScanner(strings.NewReader(string(f)))
				for n := 1; in.Scan(); n++ {
					if line := strings.TrimSpace(in.Text()); line != "" && !strings.HasPrefix(line, "#") {
						p.line = fmt.Sprintf("%s:%d: %s", file, n, line)
						p.act(line)
					}
				}
				for _, name := range slices.Sorted(maps.Keys(p.sockets)) {
					_ = p.sockets[name].conn.CloseNow()
				}
				for _, d := range p.doors {
					d.stop()
				}
			})
		})
	}
}

func (p *play) fatal(format string, args ...any) {
	p.t.Helper()
	p.t.Fatalf("%s\n%s", p.line, fmt.Sprintf(format, args...))
}

func (p *play) act(line string) {
	p.t.Helper()
	word, rest, _ := strings.Cut(line, " ")
	args := strings.Fields(rest)
	if w := p.sockets[word]; w != nil {
		p.speak(w, args[0], strings.TrimSpace(strings.TrimPrefix(rest, args[0])))
		return
	}
	switch word {
	case "open":
		path := "/ws"
		if len(args) > 2 {
			path = args[2]
		}
		w := &wire{conn: p.doors[args[1]].dial(p.t, path), said: make(chan string, 100)}
		p.sockets[args[0]] = w
		go func() {
			defer close(w.said)
			for {
				_, data, err := w.conn.Read(context.Background())
				if err != nil {
					return
				}
				w.said <- string(data)
			}
		}()
	case "close":
		_ = p.sockets[args[0]].conn.Close(websocket.StatusNormalClosure, "")
		delete(p.sockets, args[0])
	case "drop":
		_ = p.sockets[args[0]].conn.CloseNow()
		delete(p.sockets, args[0])
	case "wait":
		p.wait(args[0])
	case "task":
		spec := labmesh.Spec{Kind: labmesh.Custom, Config: json.RawMessage(strings.TrimSpace(strings.TrimPrefix(rest, args[0])))}
		p.mesh.must(labmesh.SubmitTask{ID: labmesh.TaskID(args[0]), Spec: spec})
	case "cancel":
		p.mesh.must(labmesh.CancelTask{ID: labmesh.TaskID(args[0])})
	case "phase":
		if got := p.mesh.task(labmesh.TaskID(args[0])); got.Phase != labmesh.Phase(args[1]) {
			p.fatal("it is %s: %s", got.Phase, got.Error)
		}
	case "attempts":
		if got := p.mesh.task(labmesh.TaskID(args[0])); fmt.Sprint(got.Attempt) != args[1] {
			p.fatal("it has had %d: %+v", got.Attempt, got.History)
		}
	case "worker":
		w, ok := p.mesh.view().Worker(labmesh.WorkerID(args[0]))
		if !ok || w.Status != labmesh.WorkerStatus(args[1]) || len(args) > 2 && w.Node != labmesh.NodeID(args[2]) {
			p.fatal("it is %+v", w)
		}
	case "leader":
		p.mesh.lose(args[0] == "no")
	case "stop":
		p.doors[args[0]].stop()
	case "start":
		p.doors[args[0]] = open(p.t, p.mesh, labmesh.NodeID(args[0]))
	default:
		p.fatal("there is no act %q", word)
	}
	synctest.Wait()
}

func (p *play) wait(text string) {
	d, err := time.ParseDuration(text)
	if err != nil {
		p.fatal("%v", err)
	}
	time.Sleep(d) // virtual
	synctest.Wait()
}

func (p *play) speak(w *wire, who, text string) {
	p.t.Helper()
	switch who {
	case "C":
		if err := w.conn.Write(context.Background(), websocket.MessageText, []byte(text)); err != nil {
			p.fatal("%v", err)
		}
		synctest.Wait()
	case "S":
		select {
		case got, ok := <-w.said:
			if !ok {
				p.fatal("the socket is closed")
			}
			if why := differs(got, text); why != "" {
				p.fatal("it said %s: %s", got, why)
			}
		case <-time.After(3 * time.Second):
			p.fatal("it said nothing")
		}
	case "silent":
		p.wait(text)
		select {
		case got, ok := <-w.said:
			p.fatal("it said %q (open: %t)", got, ok)
		default:
		}
	case "closed":
		select {
		case got, ok := <-w.said:
			if ok {
				p.fatal("it said %s", got)
			}
		case <-time.After(3 * time.Second):
			p.fatal("it is open")
		}
	default:
		p.fatal("who is %q", who)
	}
}

// differs says how a message is other than it should be.
func differs(got, want string) string {
	var a, b map[string]any
	if err := json.Unmarshal([]byte(got), &a); err != nil {
		return err.Error()
	}
	if err := json.Unmarshal([]byte(want), &b); err != nil {
		return "in the conversation: " + err.Error()
	}
	for k, v := range b {
		if s, ok := a[k].(string); ok && v == "*" && s != "" {
			b[k] = s
		}
	}
	if !reflect.DeepEqual(a, b) {
		return "want " + want
	}
	return ""
}
