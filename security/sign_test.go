package security_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"labmesh"
	"labmesh/security"
)

const signKey = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

// vectors are canonical messages and their signatures, from clients of the framework.
var vectors = map[string]string{
	`{"timestamp": 1715000000, "type": "heartbeat_response"}`: "doNsdv063uEXFHAiOLHuhkt3q2H1dcJtPsnUZvHzRZw=",
	`{"capabilities": {"gpu": {"count": 1, "cuda_compute": 7.5}, "hardware": ["cpu", "cuda"], "memory": {"available_gb": 8.0, "total_gb": 23.54}, "webnn": {"available": false}, "x": null}, "hostname": "h\u00f6st", "timestamp": 1715000000, "type": "register", "worker_id": "worker-1"}`:                 "UKn01d/ZzUiySkctfw8muhuhJUVGrySsTJ4AEmQ/4+Y=",
	`{"execution_time_seconds": 4.3e-05, "hardware_metrics": {"cpu_percent": 100.0}, "result": {"big": 1e+16, "e": [], "int": 5, "o": {}, "small": 1e-07, "text": "a\"b/\u2028\u20ac<>&"}, "status": "completed", "task_id": "t1", "timestamp": 1715000000, "type": "task_result", "worker_id": "worker-1"}`: "/I+c2iQtNYounrG30AWajbcB2EuFJiQmFWoWXpKnLhI=",
}

var signTime = time.Unix(1715000000, 0)

func TestSignaturesAreThoseOfTheFramework(t *testing.T) {
	t.Parallel()
	for text, want := range vectors {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &fields); err != nil {
			t.Fatal(err)
		}
		delete(fields, "timestamp")
		var loose bytes.Buffer // another order, other blanks, letters unescaped
		loose.WriteString("\n{")
		for name, raw := range fields {
			fmt.Fprintf(&loose, "  %q :%s ,", name, strings.ReplaceAll(string(raw), `\u00f6`, "ö"))
		}
		loose.WriteString(`"signature":"old"}`)
		signed, err := security.SignMessage(signKey, loose.Bytes(), signTime)
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ Signature string }
		if err := json.Unmarshal(signed, &got); err != nil || got.Signature != want {
			t.Errorf("%.40s: signature %s, want %s (%v)", text, got.Signature, want, err)
		}
		if c, err := security.Canonical([]byte(text)); err != nil || string(c) != text {
			t.Errorf("canonical form of what is canonical: %s, %v", c, err)
		}
		if s, err := security.VerifyMessage("k", signKey, signed, signTime.Add(59*time.Second)); err != nil || !s.At.Equal(signTime) || s.By != "k" {
			t.Errorf("verify: %+v, %v", s, err)
		}
	}
}

func TestOnlyTheMessageThatWasSignedVerifies(t *testing.T) {
	t.Parallel()
	signed, err := security.SignMessage(signKey, []byte(`{"type":"task_result","n":1.0}`), signTime)
	if err != nil {
		t.Fatal(err)
	}
	text := string(signed)
	for name, c := range map[string]struct {
		text, key string
		after     time.Duration
	}{
		"another value":       {strings.Replace(text, "1.0", "1.00", 1), signKey, 0},
		"another field":       {strings.Replace(text, "{", `{"a": 1, `, 1), signKey, 0},
		"a field twice":       {strings.Replace(text, "{", `{"n": 1.0, `, 1), signKey, 0},
		"another key":         {text, "x" + signKey, 0},
		"another time":        {strings.Replace(text, "1715000000", "1715000001", 1), signKey, 0},
		"a time as text":      {strings.Replace(text, "1715000000", `"1715000000"`, 1), signKey, 0},
		"too late":            {text, signKey, 61 * time.Second},
		"too early":           {text, signKey, -61 * time.Second},
		"no signature":        {`{"timestamp":1715000000}`, signKey, 0},
		"a signature of 7":    {`{"timestamp":1715000000,"signature":7}`, signKey, 0},
		"no object":           {`[1]`, signKey, 0},
		"no JSON":             {`{`, signKey, 0},
		"two messages":        {text + "{}", signKey, 0},
		"a time beyond times": {`{"timestamp":99999999999999999999,"signature":""}`, signKey, 0},
		"the first of times":  {`{"timestamp":-9223372036854775808,"signature":""}`, signKey, 0},
		"too deep":            {`{"a":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`, signKey, 0},
	} {
		if _, err := security.VerifyMessage("k", c.key, []byte(c.text), signTime.Add(c.after)); labmesh.ReasonOf(err) != labmesh.Denied {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !security.Signed(signed) || security.Signed([]byte(`{"a":1}`)) || security.Signed([]byte(`"signature"`)) {
		t.Error("what is signed is not known")
	}
}

func TestOnlyTheRequestThatWasSignedVerifies(t *testing.T) {
	t.Parallel()
	body := sha256.Sum256([]byte(`{"type":"custom"}`))
	header := security.SignRequest(signKey, "POST", "/api/tasks?x=1", body, signTime, "nonce-1234")
	s, err := security.VerifyRequest("k", signKey, header, "POST", "/api/tasks?x=1", body, signTime)
	if err != nil || s.Nonce != "nonce-1234" {
		t.Fatalf("%+v, %v", s, err)
	}
	for name, err := range map[string]error{
		"method":    second(security.VerifyRequest("k", signKey, header, "PUT", "/api/tasks?x=1", body, signTime)),
		"path":      second(security.VerifyRequest("k", signKey, header, "POST", "/api/tasks?x=2", body, signTime)),
		"body":      second(security.VerifyRequest("k", signKey, header, "POST", "/api/tasks?x=1", sha256.Sum256(nil), signTime)),
		"key":       second(security.VerifyRequest("k", "other", header, "POST", "/api/tasks?x=1", body, signTime)),
		"time":      second(security.VerifyRequest("k", signKey, header, "POST", "/api/tasks?x=1", body, signTime.Add(time.Hour))),
		"nonce":     second(security.VerifyRequest("k", signKey, strings.Replace(header, "1234", "1235", 1), "POST", "/api/tasks?x=1", body, signTime)),
		"short":     second(security.VerifyRequest("k", signKey, "t=1715000000,n=a,v1=b", "POST", "/", body, signTime)),
		"none":      second(security.VerifyRequest("k", signKey, "", "POST", "/api/tasks?x=1", body, signTime)),
		"malformed": second(security.VerifyRequest("k", signKey, "v1=abc", "POST", "/api/tasks?x=1", body, signTime)),
	} {
		if labmesh.ReasonOf(err) != labmesh.Denied {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestASignatureIsGoodOnce(t *testing.T) {
	t.Parallel()
	now := signTime
	r := security.NewReplays(now)
	sign := func(by, nonce string, at time.Time) security.Signature {
		return security.Signature{By: by, At: at, Nonce: nonce}
	}
	if err := r.Take(sign("k", "a", now.Add(-time.Second)), now); labmesh.ReasonOf(err) != labmesh.Denied {
		t.Errorf("signed before the start: %v", err)
	}
	var taken atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if r.Take(sign("k", "a", now), now) == nil {
				taken.Add(1)
			}
		})
	}
	wg.Wait()
	if taken.Load() != 1 {
		t.Errorf("taken %d times", taken.Load())
	}
	if err := r.Take(sign("k2", "a", now), now); err != nil {
		t.Errorf("the nonce of another key: %v", err)
	}
	// A signature made ahead of time may be sent for twice the window: it stays taken that long.
	ahead := sign("k", "ahead", now.Add(security.SignatureWindow))
	for i, after := range []time.Duration{0, time.Second, security.SignatureWindow, 2 * security.SignatureWindow} {
		if err := r.Take(ahead, now.Add(after)); (err == nil) != (i == 0) {
			t.Errorf("after %s: %v", after, err)
		}
		if err := r.Take(sign("k", fmt.Sprint(i), now), now.Add(after)); err != nil {
			t.Errorf("another after %s: %v", after, err)
		}
	}
}

// TestCanonicalIsWhatPythonWrites asks Python itself.
func TestCanonicalIsWhatPythonWrites(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not here")
	}
	var all strings.Builder
	for r := range rune(0x250) {
		all.WriteRune(r)
	}
	all.WriteString("\u2028\u2029\uffff😀\U0010ffff")
	message, err := json.Marshal(map[string]any{"text": all.String(), "é": 1, "z": []any{nil, true, 1.5e-9}, "😀": "", "\uffff": map[string]any{"b": 1, "a": -0.5}})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-c", "import json,sys; sys.stdout.write(json.dumps(json.load(sys.stdin), sort_keys=True))")
	cmd.Stdin = bytes.NewReader(message)
	want, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	got, err := security.Canonical(message)
	// 1.5e-9 in JSON of Go is Python's 1.5e-09: numbers keep their text.
	if err != nil || string(got) != strings.ReplaceAll(string(want), "1.5e-09", "1.5e-9") {
		t.Errorf("got  %s\nwant %s (%v)", got, want, err)
	}
}

func FuzzCanonical(f *testing.F) {
	for text := range vectors {
		f.Add([]byte(text))
	}
	f.Add([]byte(`{"a":"\ud800","b":[{}]}`))
	f.Fuzz(func(t *testing.T, message []byte) {
		got, err := security.Canonical(message)
		if err != nil {
			return
		}
		if !json.Valid(got) || len(got) > 8*len(message) {
			t.Fatalf("%q becomes %q", message, got)
		}
		again, err := security.Canonical(got)
		if err != nil || !bytes.Equal(got, again) {
			t.Fatalf("%q becomes %q, and that %q: %v", message, got, again, err)
		}
		signed, err := security.SignMessage(signKey, message, signTime)
		if err != nil {
			return // at the bound of sizes or depths
		}
		if _, err := security.VerifyMessage("k", signKey, signed, signTime); err != nil && len(signed) < 1<<20 {
			t.Errorf("what was signed does not verify: %q: %v", signed, err)
		}
	})
}

func FuzzVerifyRequest(f *testing.F) {
	f.Add("t=1715000000,n=12345678,v1=abc", "POST", "/api/tasks")
	f.Fuzz(func(t *testing.T, header, method, uri string) {
		if _, err := security.VerifyRequest("k", signKey, header, method, uri, sha256.Sum256(nil), signTime); labmesh.ReasonOf(err) != labmesh.Denied {
			t.Errorf("%q opens: %v", header, err)
		}
	})
}

func BenchmarkVerifyMessage(b *testing.B) {
	for text := range vectors {
		signed, err := security.SignMessage(signKey, []byte(text), signTime)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint(len(text)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := security.VerifyMessage("k", signKey, signed, signTime); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
