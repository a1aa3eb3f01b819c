package labmesh

// TestCase is how one test case ended in one run of it.
type TestCase struct {
	Suite       string      `json:"suite,omitempty"` // the run of a suite that it belongs to
	Framework   string      `json:"framework"`       // pytest, unittest, go or junit
	File        string      `json:"file"`            // relative to the suite's root; a Go package as ./dir
	Name        string      `json:"name"`            // within the file, e.g. TestClass::test_it
	Params      string      `json:"parameters,omitempty"`
	Verdict     TestVerdict `json:"verdict"`
	Seconds     float64     `json:"seconds"`
	Try         int         `json:"try,omitempty"` // 1 for the first run in the suite, 2 for the first retry, …
	Message     string      `json:"message,omitempty"`
	Log         string      `json:"log_ref,omitempty"` // where its output is: stream:from-to, bytes of its attempt's log
	Quarantined bool        `json:"quarantined,omitempty"`
}

// TestVerdict says how a test case ended.
type TestVerdict string

// The verdicts.
const (
	TestPassed  TestVerdict = "passed"
	TestFailed  TestVerdict = "failed"
	TestError   TestVerdict = "error" // in its setup or teardown, or before it could run
	TestSkipped TestVerdict = "skipped"
	TestXFailed TestVerdict = "xfailed" // failed, as it was expected to
	TestXPassed TestVerdict = "xpassed" // passed, though it was expected to fail
	TestCrashed TestVerdict = "crashed" // its interpreter ended while it ran
	TestTimeout TestVerdict = "timeout" // it ran past its own timeout
)

// Bad reports whether v makes a suite fail.
func (v TestVerdict) Bad() bool {
	switch v {
	case TestFailed, TestError, TestCrashed, TestTimeout:
		return true
	}
	return false
}

// Limits on test cases.
const (
	CasesMax            = 1000    // in one command
	CaseMessageBytesMax = 4 << 10 // of the message of one
	CaseNameBytesMax    = 2 << 10 // of its file, name and parameters each
)
