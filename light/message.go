package light

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"labmesh"
)

// Limits on messages.
const (
	FrameInMax    = 4 << 20  // bytes of a message from a worker
	FrameFirstMax = 64 << 10 // of its first one, before it is known who sends it
	FrameOutMax   = 1 << 20  // bytes of a message to a worker: it refuses more
	idBytesMax    = 256
	errorBytesMax = 2 << 10 // of what is said of a failure
	wordsMax      = 64      // words for hardware, tags, GPUs, of which more are left out
	wordBytesMax  = 128
	extrasMax     = 4096 // rows or test cases that come with one result
)

// The types of messages, of workers and of nodes.
const (
	TypeAuth               = "auth"
	TypeAuthResponse       = "auth_response"
	TypeRegister           = "register"
	TypeRegisterResponse   = "register_response"
	TypeHeartbeat          = "heartbeat"
	TypeHeartbeatResponse  = "heartbeat_response"
	TypeExecuteTask        = "execute_task"
	TypeCancelTask         = "cancel_task"
	TypeTaskResult         = "task_result"
	TypeTaskResultResponse = "task_result_response"
	TypeError              = "error"
)

// What a node says of a message that it does not take.
const (
	ErrorAuthRequired  = "Authentication required"
	ErrorInvalidKey    = "Invalid API key"
	ErrorInvalidToken  = "Invalid token"
	ErrorFormat        = "Invalid JSON format"
	ErrorSignature     = "Invalid message signature"
	ErrorNotRegistered = "Worker not registered"
	ErrorTaskID        = "Task ID is required"
)

// ErrorUnknownType says that there is no such type of message.
func ErrorUnknownType(t string) string { return "Unknown message type: " + clip(t, wordBytesMax) }

// ErrorNoTask says that the mesh knows no such task.
func ErrorNoTask(id labmesh.TaskID) string { return "Task " + string(id) + " not found" }

// ErrorNotYours says that a task is not, or no more, the worker's.
func ErrorNotYours(id labmesh.TaskID) string {
	return "Task " + string(id) + " is not assigned to this worker"
}

// Message is what a worker says. Which fields mean something depends on Type; what a worker
// left out, or sent as something else than it should be, is zero.
type Message struct {
	Type     string
	Worker   labmesh.WorkerID
	AuthType string // api_key or token
	APIKey   string
	Token    string

	Hostname     string
	Capabilities labmesh.Capabilities
	Kinds        []labmesh.Kind // all of them where it does not say
	Tags         map[string]string

	Running   labmesh.TaskID // of a heartbeat: the task that it says it runs
	Progress  *float64       // in percent, where it says so
	Cancelled labmesh.TaskID // of a heartbeat: the task that it says it has stopped

	Task    labmesh.TaskID  // of a result
	Outcome labmesh.Outcome // likewise
	Rows    []labmesh.BenchRow
	Cases   []labmesh.TestCase
	Metrics json.RawMessage // of the machine
}

var errFormat = errors.New(ErrorFormat)

// Decode reads a message of a worker. The only error is that it is no JSON object.
func Decode(data []byte) (Message, error) {
	if !utf8.Valid(data) {
		data = bytes.ToValidUTF8(data, []byte("\uFFFD"))
	}
	f, ok := fieldsOf(data)
	if !ok {
		if data = withoutNaN(data); data != nil {
			f, ok = fieldsOf(data)
		}
	}
	if !ok {
		return Message{}, errFormat
	}
	m := Message{Type: f.text("type"), Worker: labmesh.WorkerID(f.id("worker_id"))}
	switch m.Type {
	case TypeAuth:
		m.AuthType, m.APIKey, m.Token = f.text("auth_type"), f.text("api_key"), f.text("token")
	case TypeRegister:
		caps := f.object("capabilities")
		m.Capabilities = capabilitiesOf(caps)
		m.Hostname = clip(f.text("hostname"), wordBytesMax)
		if m.Hostname == "" {
			m.Hostname = m.Capabilities.Hostname
		}
		m.Kinds, m.Tags = kindsOf(f), f.texts("tags")
	case TypeHeartbeat:
		m.Metrics = f.raw("hardware_metrics", labmesh.ResultBytesMax)
		status := f.object("task_status")
		if s := status.text("status"); s == "" || s == "running" || s == "assigned" || s == "executing" || s == "started" {
			m.Running = labmesh.TaskID(status.id("task_id"))
		}
		if p, ok := status.number("progress"); ok {
			m.Progress = &p
		}
		m.Cancelled = labmesh.TaskID(f.object("task_cancelled").id("task_id"))
	case TypeTaskResult:
		m.Task = labmesh.TaskID(f.id("task_id"))
		m.Outcome = outcomeOf(f)
		m.Rows, m.Cases = listOf[labmesh.BenchRow](f["benchmark_rows"]), listOf[labmesh.TestCase](f["test_cases"])
	}
	return m, nil
}

// outcomeOf is what a worker says of an attempt that ended.
func outcomeOf(f fields) labmesh.Outcome {
	o := labmesh.Outcome{Result: f.raw("result", labmesh.ResultBytesMax), Metrics: f.raw("hardware_metrics", labmesh.ResultBytesMax)}
	if s, ok := f.number("execution_time_seconds"); ok && s > 0 && s < math.MaxInt32 {
		o.Seconds = s
	}
	switch strings.ToLower(f.text("status")) {
	case "completed", "complete", "success", "succeeded", "passed":
		o.OK = true
		return o
	case "timed_out", "timeout":
		o.Cause = labmesh.CauseTimeout
	case "cancelled", "canceled":
		o.Cause = labmesh.CauseWorkerLost // by the worker itself: the task is wanted all the same
	default:
		o.Cause = labmesh.CauseExit
	}
	if c := labmesh.Cause(f.text("cause")); causes[c] {
		o.Cause = c
	}
	if o.Error = f.text("error"); o.Error == "" {
		o.Error = string(f.raw("error", errorBytesMax)) // an object, of some makes
	}
	if o.Error == "" {
		o.Error = "the worker says that it failed, and not why"
	}
	o.Error = clip(o.Error, errorBytesMax)
	return o
}

// causes are those that a worker may give for a failure.
var causes = map[labmesh.Cause]bool{
	labmesh.CauseExit: true, labmesh.CauseSignal: true, labmesh.CauseTimeout: true, labmesh.CauseProgram: true, labmesh.CauseConfig: true,
	labmesh.CauseSpawn: true, labmesh.CauseDisk: true, labmesh.CauseWorkerLost: true, labmesh.CauseOOM: true, labmesh.CauseQuota: true,
}

func kindsOf(f fields) []labmesh.Kind {
	var words []string
	if json.Unmarshal(f["kinds"], &words) != nil || len(words) == 0 {
		return labmesh.Kinds()
	}
	var out []labmesh.Kind
	for _, k := range labmesh.Kinds() {
		if slices.Contains(words, string(k)) {
			out = append(out, k)
		}
	}
	return out
}

func listOf[T any](data json.RawMessage) []T {
	var out []T
	if len(data) == 0 || json.Unmarshal(data, &out) != nil {
		return nil
	}
	return out[:min(len(out), extrasMax)]
}

// Execute is the message that has a worker run a task.
type Execute struct {
	Type    string          `json:"type"`
	Task    labmesh.TaskID  `json:"task_id"`
	Kind    labmesh.Kind    `json:"task_type"`
	Config  json.RawMessage `json:"config"`
	Timeout float64         `json:"timeout_seconds,omitempty"` // of the attempt; workers need not keep it
}

// Cancel is the message that has a worker stop a task.
type Cancel struct {
	Type   string         `json:"type"`
	Task   labmesh.TaskID `json:"task_id"`
	Reason string         `json:"reason"` // see [Step.Reason]
}

// AuthResponse says whether a worker may speak.
type AuthResponse struct {
	Type    string           `json:"type"`
	Status  string           `json:"status"` // success or error
	Token   string           `json:"token,omitempty"`
	Worker  labmesh.WorkerID `json:"worker_id,omitempty"`
	Message string           `json:"message,omitempty"`
}

// RegisterResponse says that a worker is known.
type RegisterResponse struct {
	Type   string           `json:"type"`
	Status string           `json:"status"`
	Worker labmesh.WorkerID `json:"worker_id"`
}

// HeartbeatResponse answers a heartbeat.
type HeartbeatResponse struct {
	Type string `json:"type"`
	At   string `json:"timestamp"`
}

// ResultResponse says that a result was taken.
type ResultResponse struct {
	Type     string         `json:"type"`
	Task     labmesh.TaskID `json:"task_id"`
	Received string         `json:"received"`
}

// Error says what was wrong with a message.
type Error struct {
	Type    string `json:"type"`
	Message string `json:"message"`
}

// Stamp writes a time as the protocol has it: RFC 3339 in UTC with microseconds.
func Stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z07:00") }

// Encode writes a message of a node. It refuses one that a worker would not read.
func Encode(message any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(message); err != nil {
		return nil, err
	}
	out := bytes.TrimRight(b.Bytes(), "\n")
	if len(out) > FrameOutMax {
		return nil, labmesh.Refuse(labmesh.TooLarge, "the message has %d bytes: a light worker reads at most %d", len(out), FrameOutMax)
	}
	return out, nil
}

// fields are those of a JSON object. What is not there, or of another type, reads as zero.
type fields map[string]json.RawMessage

func fieldsOf(data []byte) (fields, bool) {
	var f fields
	if err := json.Unmarshal(data, &f); err != nil || f == nil {
		return nil, false
	}
	return f, true
}

func (f fields) text(name string) string {
	var s string
	if json.Unmarshal(f[name], &s) != nil {
		return ""
	}
	return s
}

// id is a name: a text, or a whole number as some write it.
func (f fields) id(name string) string {
	s := f.text(name)
	if s == "" {
		var n json.Number
		if json.Unmarshal(f[name], &n) == nil {
			s = n.String()
		}
	}
	if len(s) > idBytesMax || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }) {
		return ""
	}
	return s
}

// number is a number, also one that was written as a text.
func (f fields) number(name string) (float64, bool) {
	var n float64
	data := f[name]
	if len(data) == 0 || string(data) == "null" {
		return 0, false
	}
	if json.Unmarshal(data, &n) == nil {
		return n, true
	}
	n, err := strconv.ParseFloat(f.text(name), 64)
	return n, err == nil && !math.IsNaN(n) && !math.IsInf(n, 0)
}

// size is a number that counts or measures something: 0 where it is not known, or makes no sense.
func (f fields) size(name string) float64 {
	if n, ok := f.number(name); ok && n > 0 && n < 1e12 {
		return n
	}
	return 0
}

func (f fields) object(name string) fields {
	o, _ := fieldsOf(f[name])
	return o
}

// texts is an object of short texts.
func (f fields) texts(name string) map[string]string {
	var out map[string]string
	for k := range f.object(name) {
		if v := f.object(name).id(k); v != "" && len(k) <= wordBytesMax && len(v) <= wordBytesMax && len(out) < wordsMax {
			if out == nil {
				out = map[string]string{}
			}
			out[k] = v
		}
	}
	return out
}

// raw is a value as it was written, but for one that takes more than most bytes: of that it says so.
func (f fields) raw(name string, most int) json.RawMessage {
	data := f[name]
	if len(data) == 0 || string(data) == "null" {
		return nil
	}
	var b bytes.Buffer
	if json.Compact(&b, data) != nil {
		return nil
	}
	if b.Len() > most {
		return json.RawMessage(`{"truncated":true,"bytes":` + strconv.Itoa(b.Len()) + `}`)
	}
	return b.Bytes()
}

// withoutNaN is a message with null for the numbers that Python writes and JSON does not
// have; nil where there are none.
func withoutNaN(data []byte) []byte {
	var out []byte
	inText := false
	for i := 0; i < len(data); i++ {
		c := data[i]
		switch {
		case inText && c == '\\' && i+1 < len(data):
			out = append(out, c, data[i+1])
			i++
			continue
		case c == '"':
			inText = !inText
		case inText:
		default:
			if n := noNumber(data[i:]); n > 0 {
				out = append(out, "null"...)
				i += n - 1
				continue
			}
		}
		out = append(out, c)
	}
	if bytes.Equal(out, data) {
		return nil
	}
	return out
}

func noNumber(data []byte) int {
	for _, word := range []string{"NaN", "-Infinity", "Infinity"} {
		if bytes.HasPrefix(data, []byte(word)) {
			return len(word)
		}
	}
	return 0
}

// clip is valid text of at most so many bytes.
func clip(s string, most int) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "\uFFFD")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + " …"
	}
	return s
}
