package output

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestValuesAreHidden(t *testing.T) {
	t.Parallel()
	const pem = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nshort\n-----END KEY-----\n"
	r := NewRedactor(map[string]string{"TOKEN": "hunter22", "PART": "hunter22-and-more", "ODD": "a\"b\\c d&é", "PIN": "123", "KEY": pem, "LINE": "sw0rdfish\n", "EMPTY": ""})
	odd := "a\"b\\c d&é"
	quoted, _ := json.Marshal(odd)
	for in, want := range map[string]string{
		"":                                 "",
		"nothing here":                     "nothing here",
		"my hunter22 is":                   "my [secret TOKEN] is",
		"hunter22hunter22":                 "[secret TOKEN][secret TOKEN]",
		"hunter2 hunter2":                  "hunter2 hunter2",
		"hunter2hunter22":                  "hunter2[secret TOKEN]",
		"hunter22-and-more hunter22-and":   "[secret PART] [secret TOKEN]-and",
		"the PIN 123 is too short to hide": "the PIN 123 is too short to hide",
		"an " + odd + " one":               "an [secret ODD] one",
		"json " + string(quoted):           `json "[secret ODD]"`,
		"q=" + url.QueryEscape(odd) + "&x": "q=[secret ODD]&x",
		"/" + url.PathEscape(odd) + "/":    "/[secret ODD]/",
		base64.StdEncoding.EncodeToString([]byte("hunter22")):                      "[secret TOKEN]=",
		"Basic " + base64.StdEncoding.EncodeToString([]byte("ada:hunter22")) + "!": "Basic YWRhOm[secret TOKEN]!",
		"key:\n" + pem: "key:\n[secret KEY]",
		"  MIIEvQIBADANBg\n  short\n  -----END KEY-----\n": "  [secret KEY]\n  short\n  [secret KEY]\n",
		"sw0rdfish and sw0rdfish\n":                        "[secret LINE] and [secret LINE]",
	} {
		if got := r.String(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
	for shift := range 6 {
		for tail := range 4 {
			text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + "hunter22" + strings.Repeat("y", tail)))
			if got := r.String(text); !strings.Contains(got, "[secret TOKEN]") {
				t.Errorf("%d bytes into Base64 with %d to follow: %s", shift, tail, got)
			}
		}
	}
}

func TestNothingToHideCostsNothing(t *testing.T) {
	t.Parallel()
	for _, values := range []map[string]string{nil, {"A": ""}, {"A": "abc"}} {
		r := NewRedactor(values)
		if r != nil || r.String("abc") != "abc" || string(r.JSON(json.RawMessage(`{"a" : 1}`))) != `{"a" : 1}` {
			t.Errorf("%v: %v", values, r)
		}
		o := New(t.TempDir())
		o.Redact(r)
		if o.veils != nil {
			t.Error("an output without values has veils")
		}
		o.Close()
	}
}

func TestValuesInJSONAreHidden(t *testing.T) {
	t.Parallel()
	r := NewRedactor(map[string]string{"A": "say \"hé\"", "N": "12345", "Q": `","`})
	for in, want := range map[string]string{
		`{"a":"x say \"h\u00e9\" y","b":[1,"say \"hé\""],"say \"hé\"":null}`: `{"[secret A]":null,"a":"x [secret A] y","b":[1,"[secret A]"]}`,
		`{"exit_code":12345,"stdout":"12345","big":12345678901234567890}`:    `{"big":12345678901234567890,"exit_code":12345,"stdout":"[secret N]"}`,
		`["a","b"]`:    `["a","b"]`,
		`{"cut":"1234`: `"{\"cut\":\"1234"`,
	} {
		if got := string(r.JSON(json.RawMessage(in))); got != want {
			t.Errorf("%s becomes %s, want %s", in, got, want)
		}
	}
}

// kept is all that an output kept of stdout.
func kept(t interface{ Fatal(...any) }, dir string) string {
	data, err := os.ReadFile(filepath.Join(dir, "stdout"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

// TestHoweverOutputIsCutValuesAreHidden: written in any pieces it reads as
// though it had come in one, and holds no value.
func TestHoweverOutputIsCutValuesAreHidden(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(r *rapid.T) {
		values := map[string]string{}
		for _, name := range []string{"A", "B", "C"} {
			values[name] = rapid.StringMatching(`[ab]{4,9}`).Draw(r, "value") // alike, so that they overlap
		}
		text := rapid.StringMatching(`([abc]|\[secret A\]){0,80}`).Draw(r, "text")
		red := NewRedactor(values)
		n++
		o := New(filepath.Join(dir, string(rune('a'+n%26))))
		if err := os.MkdirAll(o.dir, 0o700); err != nil {
			r.Fatal(err)
		}
		os.Remove(filepath.Join(o.dir, "stdout"))
		o.Redact(red)
		for rest := text; rest != ""; {
			k := rapid.IntRange(1, len(rest)).Draw(r, "piece")
			o.mu.Lock()
			o.put(Stdout, []byte(rest[:k]))
			o.veils.timer.Stop() // nothing is shown before its time here
			o.mu.Unlock()
			rest = rest[k:]
		}
		o.Close()
		got := kept(r, o.dir)
		if want := red.String(text); got != want {
			r.Fatalf("%q of %v reads %q, want %q", text, values, got, want)
		}
		for name, value := range values {
			for part := range strings.SplitSeq(got, "[secret") {
				if strings.Contains(part, value) {
					r.Fatalf("%q of %v reads %q: %s is in it", text, values, got, name)
				}
			}
		}
	})
}

func TestWhatIsHeldBackIsShownSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := New(t.TempDir())
		o.Redact(NewRedactor(map[string]string{"TOKEN": "hunter22", "OTHER": "hunter-two", "IN": "unte"}))
		defer o.Close()
		for _, step := range []struct{ write, soon, later string }{
			{"#", "#", "#"},                                    // cannot be a beginning
			{" hu", "# ", "# hu"},                              // may be one, and nothing more comes
			{"man", "# human", "# human"},                      // it was none
			{" hunter2", "# human ", "# human h[secret IN]r2"}, // another value is in it
			{"!\nhu", "# human h[secret IN]r2!\n", "# human h[secret IN]r2!\nhu"},        // …
			{"nter22\n", "", "# human h[secret IN]r2!\nhu[secret TOKEN]\n"},              // only the rest could be hidden
			{"bye", "", "# human h[secret IN]r2!\nhu[secret TOKEN]\nbye"},                // …
			{"h", "", "# human h[secret IN]r2!\nhu[secret TOKEN]\nbyeh"},                 // …
			{"unter", "", "# human h[secret IN]r2!\nhu[secret TOKEN]\nbyeh[secret IN]r"}, // …
		} {
			o.Write(Stdout, []byte(step.write))
			if got := kept(t, o.dir); step.soon != "" && got != step.soon {
				t.Errorf("after %q: %q, want %q", step.write, got, step.soon)
			}
			time.Sleep(2 * showAfter)
			synctest.Wait()
			if got := kept(t, o.dir); got != step.later {
				t.Errorf("some time after %q: %q, want %q", step.write, got, step.later)
			}
		}
	})
}

func TestReadersSeeNoValue(t *testing.T) {
	t.Parallel()
	o := New(t.TempDir())
	o.Redact(NewRedactor(map[string]string{"TOKEN": "hunter22"}))
	text := bytes.Repeat([]byte("x hunter22 y\n"), 400_000)
	for rest := text; len(rest) > 0; {
		n := min(len(rest), 4093)
		o.Write(Stdout, rest[:n])
		rest = rest[n:]
	}
	o.Write(Stderr, []byte("hunter2"))
	if e := o.Excerpt(Stdout); strings.Contains(e.Text, "hunter") {
		t.Errorf("excerpt %s", e.Text)
	}
	o.Close()
	if e := o.Excerpt(Stderr); e.Text != "hunter2" {
		t.Errorf("stderr %q", e.Text)
	}
	r := o.Open(context.Background(), Query{Stream: Stdout})
	defer r.Close()
	buf := make([]byte, 64<<10)
	for {
		piece, err := r.Next(buf)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(piece.Data, []byte("hunter")) {
			t.Fatal("a value is in the output")
		}
	}
}

func BenchmarkRedact(b *testing.B) {
	line := bytes.Repeat([]byte("all the work and no play makes a dull log\n"), 800)
	for name, values := range map[string]map[string]string{"plain": nil, "secret": {"TOKEN": "hunter22", "KEY": strings.Repeat("zq", 40)}} {
		b.Run(name, func(b *testing.B) {
			o := New(b.TempDir())
			o.Redact(NewRedactor(values))
			defer o.Close()
			b.SetBytes(int64(len(line)))
			for b.Loop() {
				o.Write(Stdout, line)
			}
		})
	}
}
