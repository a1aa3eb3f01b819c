package api

import (
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"labmesh"
)

// Limits on a task.
const (
	SpecBytesMax   = 256 << 10 // everything in it together
	IDBytesMax     = 128
	KeyBytesMax    = 256 // an idempotency key
	NameCharsMax   = 256
	LabelsMax      = 64
	LabelCharsMax  = 256 // a key or a value
	HardwareMax    = 64  // words in requirements.hardware
	EnvMax         = 1024
	EnvNameMax     = 256       // bytes
	ArgBytesMax    = 128 << 10 // one argument or environment value: what Linux can pass on
	PriorityMax    = 1_000_000
	RetriesMax     = 100
	AttemptsMax    = 1000
	CPUsMax        = 100_000
	GPUsMax        = 10_000
	TimeoutSecsMax = 365 * 24 * 3600
	MemoryGBMax    = 1 << 20
	ComputeMax     = 1000
	SecretsMax     = 64
	DependsMax     = 1000
	ArtifactsMax   = 64   // patterns
	PatternMax     = 1024 // bytes of one
	ToolsMax       = 64
	PidsMax        = 1 << 22
)

// ValidateSpec is nil for a task that may be submitted, and otherwise a refusal
// that names the field at fault. It does not look at what workers there are.
func ValidateSpec(s *labmesh.Spec) error {
	if e := validateSpec(s); e != nil {
		return e
	}
	return nil
}

func validateSpec(s *labmesh.Spec) *labmesh.Error {
	if s.Kind == "" {
		return missing("type")
	}
	if n := specBytes(s); n > SpecBytesMax {
		return &labmesh.Error{Reason: labmesh.TooLarge, Message: sayf("the task takes %d bytes; at most %d are allowed", n, SpecBytesMax)}
	}
	if e := validateNames(s); e != nil {
		return e
	}
	if e := validateNumbers(s); e != nil {
		return e
	}
	if e := validatePairs("labels", s.Labels); e != nil {
		return e
	}
	if e := validateEnv(s.Env); e != nil {
		return e
	}
	if e := validateFiles(s); e != nil {
		return e
	}
	if e := validateLimits(s.Limits); e != nil {
		return e
	}
	if e := validateRequirements(&s.Requirements); e != nil {
		return e
	}
	return validateConfig(s)
}

// specBytes is about how much room a task takes, counted without encoding it.
func specBytes(s *labmesh.Spec) int {
	n := len(s.Config) + len(s.Name) + len(s.TaskID) + len(s.IdempotencyKey)
	for _, m := range []map[string]string{s.Labels, s.Env, s.Requirements.Tags} {
		for k, v := range m {
			n += len(k) + len(v) + len(`"":"",`)
		}
	}
	for _, id := range s.DependsOn {
		n += len(id) + len(`"",`)
	}
	for _, list := range [][]string{s.Requirements.Hardware, s.Requirements.Tools, s.Secrets, s.Artifacts} {
		for _, w := range list {
			n += len(w) + len(`"",`)
		}
	}
	return n
}

func validateNames(s *labmesh.Spec) *labmesh.Error {
	switch {
	case s.TaskID != "" && !ValidID(string(s.TaskID)):
		return refuse("task_id", "%.40q is not 1 to %d of A-Z a-z 0-9 . _ : -", s.TaskID, IDBytesMax)
	case len(s.DependsOn) > DependsMax:
		return refuse("depends_on", "there are %d; at most %d are allowed", len(s.DependsOn), DependsMax)
	case slices.ContainsFunc(s.DependsOn, func(id labmesh.TaskID) bool { return !ValidID(string(id)) }):
		return refuse("depends_on", "an id is not 1 to %d of A-Z a-z 0-9 . _ : -", IDBytesMax)
	case len(s.IdempotencyKey) > KeyBytesMax:
		return refuse("idempotency_key", "it has %d bytes; at most %d are allowed", len(s.IdempotencyKey), KeyBytesMax)
	case strings.ContainsRune(s.IdempotencyKey, 0):
		return refuse("idempotency_key", "it holds a NUL character")
	case utf8.RuneCountInString(s.Name) > NameCharsMax:
		return refuse("name", "it is longer than %d characters", NameCharsMax)
	case strings.ContainsFunc(s.Name, control):
		return refuse("name", "it holds a control character")
	}
	return nil
}

func validateNumbers(s *labmesh.Spec) *labmesh.Error {
	switch {
	case s.Priority < -PriorityMax || s.Priority > PriorityMax:
		return refuse("priority", "%d is not in -%d to %d", s.Priority, PriorityMax, PriorityMax)
	case !within(s.TimeoutSeconds, TimeoutSecsMax):
		return refuse("timeout_seconds", "%g is not in 0 to %d", s.TimeoutSeconds, TimeoutSecsMax)
	case !within(s.QueueTimeoutSeconds, TimeoutSecsMax):
		return refuse("queue_timeout_seconds", "%g is not in 0 to %d", s.QueueTimeoutSeconds, TimeoutSecsMax)
	case s.MaxAttempts < 0 || s.MaxAttempts > AttemptsMax:
		return refuse("max_attempts", "%d is not in 0 to %d", s.MaxAttempts, AttemptsMax)
	case !validDisconnect(s.OnDisconnect):
		return refuse("on_disconnect", "%.40q is not stop, keep, or a duration of %s to %s such as 10m", s.OnDisconnect, OutlastMin, OutlastMax)
	case s.Retry == nil:
		return nil
	case s.Retry.MaxRetries < 0 || s.Retry.MaxRetries > RetriesMax:
		return refuse("retry_policy.max_retries", "%d is not in 0 to %d", s.Retry.MaxRetries, RetriesMax)
	case !within(s.Retry.BackoffSeconds, labmesh.BackoffMax.Seconds()):
		return refuse("retry_policy.backoff_seconds", "%g is not in 0 to %g", s.Retry.BackoffSeconds, labmesh.BackoffMax.Seconds())
	}
	return nil
}

// Bounds on on_disconnect. Less than OutlastMin would hardly be more than a worker's lease.
const (
	OutlastMin = 10 * time.Second
	OutlastMax = 30 * 24 * time.Hour
)

// DisconnectStop is the word of on_disconnect for what it is by default; in the log that is "".
const DisconnectStop = "stop"

func validDisconnect(s string) bool {
	if s == "" || s == DisconnectStop || s == labmesh.Keep {
		return true
	}
	d, err := time.ParseDuration(s)
	return err == nil && d >= OutlastMin && d <= OutlastMax
}

func validatePairs(field string, m map[string]string) *labmesh.Error {
	if len(m) > LabelsMax {
		return refuse(field, "there are %d; at most %d are allowed", len(m), LabelsMax)
	}
	for k, v := range m {
		switch {
		case k == "":
			return refuse(field, "a key is empty")
		case utf8.RuneCountInString(k) > LabelCharsMax || strings.ContainsFunc(k, control):
			return refuse(field, "the key %.40q is longer than %d characters or holds a control character", k, LabelCharsMax)
		case utf8.RuneCountInString(v) > LabelCharsMax || strings.ContainsRune(v, 0):
			return refuse(field+"."+k, "the value is longer than %d characters or holds a NUL character", LabelCharsMax)
		}
	}
	return nil
}

func validateEnv(env map[string]string) *labmesh.Error {
	if len(env) > EnvMax {
		return refuse("env", "there are %d; at most %d are allowed", len(env), EnvMax)
	}
	for k, v := range env {
		switch {
		case !ValidEnvName(k):
			return refuse("env", "%.40q is not a name: letters, digits and _, not beginning with a digit", k)
		case len(v) > ArgBytesMax:
			return refuse("env."+k, "the value has %d bytes; at most %d are allowed", len(v), ArgBytesMax)
		case strings.ContainsRune(v, 0):
			return refuse("env."+k, "the value holds a NUL character")
		}
	}
	return nil
}

// validateFiles looks at what an attempt is given and what it leaves.
func validateFiles(s *labmesh.Spec) *labmesh.Error {
	switch {
	case s.Bundle != "" && !ValidContentID(s.Bundle):
		return refuse("bundle", "%.80q is no content id: it is 64 hexadecimal digits, as an upload of a bundle answers", s.Bundle)
	case len(s.Artifacts) > ArtifactsMax:
		return refuse("artifacts", "there are %d patterns; at most %d are allowed", len(s.Artifacts), ArtifactsMax)
	case len(s.Secrets) > SecretsMax:
		return refuse("secrets", "there are %d; at most %d are allowed", len(s.Secrets), SecretsMax)
	}
	for _, p := range s.Artifacts {
		if p == "" || len(p) > PatternMax || strings.ContainsFunc(p, control) || slices.Contains(strings.Split(p, "/"), "..") {
			return refuse("artifacts", "%.80q is no pattern for files in the work directory: 1 to %d bytes, no .. and no control character", p, PatternMax)
		}
	}
	for i, name := range s.Secrets {
		switch _, set := s.Env[name]; {
		case ValidateSecretName(name) != nil:
			return refuse("secrets", "%.40q is not a name: letters, digits and _, not beginning with a digit or %s", name, ownPrefix)
		case set:
			return refuse("secrets", "%s is in env too: it can have one value only", name)
		case slices.Contains(s.Secrets[:i], name):
			return refuse("secrets", "%s is there twice", name)
		}
	}
	return nil
}

func validateLimits(l *labmesh.Limits) *labmesh.Error {
	switch {
	case l == nil:
	case !within(l.CPUs, CPUsMax):
		return refuse("limits.cpus", "%g is not in 0 to %d", l.CPUs, CPUsMax)
	case !within(l.MemoryGB, MemoryGBMax):
		return refuse("limits.memory_gb", "%g is not in 0 to %d", l.MemoryGB, MemoryGBMax)
	case l.Pids < 0 || l.Pids > PidsMax:
		return refuse("limits.pids", "%d is not in 0 to %d", l.Pids, PidsMax)
	case !within(l.DiskGB, MemoryGBMax):
		return refuse("limits.disk_gb", "%g is not in 0 to %d", l.DiskGB, MemoryGBMax)
	}
	return nil
}

func validateRequirements(r *labmesh.Requirements) *labmesh.Error {
	const at = "requirements."
	switch {
	case len(r.Hardware) > HardwareMax:
		return refuse(at+"hardware", "there are %d words; at most %d are allowed", len(r.Hardware), HardwareMax)
	case slices.ContainsFunc(r.Hardware, func(w string) bool { return !ValidID(w) }):
		return refuse(at+"hardware", "a word is not 1 to %d of A-Z a-z 0-9 . _ : -", IDBytesMax)
	case !within(r.MinMemoryGB, MemoryGBMax):
		return refuse(at+"min_memory_gb", "%g is not in 0 to %d", r.MinMemoryGB, MemoryGBMax)
	case !within(r.MinCUDACompute, ComputeMax):
		return refuse(at+"min_cuda_compute", "%g is not in 0 to %d", r.MinCUDACompute, ComputeMax)
	case r.CPUs < 0 || r.CPUs > CPUsMax:
		return refuse(at+"cpus", "%d is not in 0 to %d", r.CPUs, CPUsMax)
	case r.GPUs < 0 || r.GPUs > GPUsMax:
		return refuse(at+"gpus", "%d is not in 0 to %d", r.GPUs, GPUsMax)
	case len(r.WorkerID) > 2*IDBytesMax || strings.ContainsFunc(string(r.WorkerID), control):
		return refuse(at+"worker_id", "it is longer than %d bytes or holds a control character", 2*IDBytesMax)
	}
	if e := validateTools(r); e != nil {
		return e
	}
	return validatePairs(at+"tags", r.Tags)
}

func validateTools(r *labmesh.Requirements) *labmesh.Error {
	switch {
	case len(r.Tools) > ToolsMax:
		return refuse("requirements.tools", "there are %d; at most %d are allowed", len(r.Tools), ToolsMax)
	case slices.ContainsFunc(r.Tools, func(t string) bool { return !ValidID(t) }):
		return refuse("requirements.tools", "a name is not 1 to %d of A-Z a-z 0-9 . _ : -", IDBytesMax)
	case r.Sandbox != labmesh.SandboxNone && !slices.Contains(labmesh.Sandboxes(), r.Sandbox):
		return refuse("requirements.sandbox", "%.40q is no sandbox: there are %v", r.Sandbox, labmesh.Sandboxes())
	}
	return nil
}

// ValidContentID reports whether s may name a tree of content: a SHA-256 in hexadecimal.
func ValidContentID(s string) bool {
	if len(s) != 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// ValidID reports whether s may be the id of a task or a worker: 1 to
// [IDBytesMax] of A-Z a-z 0-9 . _ : -
func ValidID(s string) bool {
	if s == "" || len(s) > IDBytesMax {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !alnum(c) && c != '.' && c != '_' && c != ':' && c != '-' {
			return false
		}
	}
	return true
}

// ValidEnvName reports whether s may name a variable of the environment.
func ValidEnvName(s string) bool {
	if s == "" || len(s) > EnvNameMax || s[0] >= '0' && s[0] <= '9' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !alnum(c) && c != '_' {
			return false
		}
	}
	return true
}

func alnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func control(r rune) bool { return r < ' ' || r == 0x7f }

// within is false for NaN and the infinities too.
func within(f, hi float64) bool { return f >= 0 && f <= hi && !math.IsNaN(f) }
