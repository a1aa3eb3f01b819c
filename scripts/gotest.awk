# gotest.awk reads what `go test -json` prints, one event a line, and prints what
# `go test` would have: lines of packages as they come, and what failed tests
# said. The last line counts tests (not subtests). It exits with 1 if anything
# failed, or if there was nothing. With failed=FILE that file gets a line, the package
# and the test, for each that may be run again, and nothing if one may not; a package
# whose race detector broke down is named alone.

BEGIN { srand(); began = srand() } # the second call tells the time of the first

# field is a string value of this event, still escaped; "" without one.
function field(name,   at, rest, i, c) {
	at = index($0, "\"" name "\":\"")
	if (at == 0) return ""
	rest = substr($0, at + length(name) + 4)
	if (name == "Output") return substr(rest, 1, length(rest) - 2) # it is the last
	return substr(rest, 1, index(rest, "\"") - 1)
}

function plain(s,   mark) {
	mark = "\001"
	gsub(/\\\\/, mark, s)
	gsub(/\\n/, "\n", s); gsub(/\\t/, "\t", s); gsub(/\\r/, "\r", s); gsub(/\\"/, "\"", s)
	gsub(/\\u003c/, "<", s); gsub(/\\u003e/, ">", s); gsub(/\\u0026/, "\\&", s); gsub(/\\u001b/, "\033", s)
	gsub(mark, "\\", s)
	return s
}

# words is what a test said, without the lines on its coming and going.
function words(text) {
	text = "\n" text
	while (match(text, /\n=== [A-Z]+ [^\n]*/)) text = substr(text, 1, RSTART - 1) substr(text, RSTART + RLENGTH)
	return substr(text, 2)
}

# top is the name of a test without its subtests.
function top(test,   at) {
	at = index(test, "/")
	return at ? substr(test, 1, at - 1) : test
}

!/^\{/ { print; next }

{
	action = field("Action"); pkg = field("Package"); test = field("Test")
}

action == "build-output" { printf "%s", plain(field("Output")); next }

action == "output" && test == "" {
	text = plain(field("Output"))
	if (text !~ /^(PASS|FAIL)\n$/ && text !~ /no test files/) { printf "%s", text; fflush() }
	next
}

action == "output" {
	said[pkg, top(test)] = said[pkg, top(test)] plain(field("Output"))
	next
}

test != "" && index(test, "/") == 0 && (action == "pass" || action == "fail" || action == "skip") {
	count[action]++
	if (action == "fail" && said[pkg, test] ~ /WARNING: DATA RACE/) final = 1
	if (action == "fail") again = again pkg " " test "\n"
	if (action == "fail") { printf "%s", words(said[pkg, test]); names = names "\n  " pkg " " test; failures[pkg]++ }
	if (action == "skip") skipped = skipped "\n  " pkg " " test
	delete said[pkg, test]
	next
}

test == "" && action == "fail" { # what was under way when it died, and why
	for (key in said) {
		split(key, part, SUBSEP)
		if (part[1] != pkg) continue
		if (said[key] ~ /ThreadSanitizer: CHECK failed/) broke[pkg] = 1
		printf "%s", words(said[key]); cut[pkg]++; delete said[key]
	}
	if (cut[pkg] > 0 || failures[pkg] == 0) {
		count["fail"]++; names = names "\n  " pkg " (the package)"
		if (broke[pkg]) again = again pkg "\n"; else final = 1
	}
}

END {
	if (skipped != "") print "skipped:" skipped
	if (names != "") print "failed:" names
	srand()
	printf "took %d s\n", srand() - began
	printf "%d passed, %d failed\n", count["pass"], count["fail"]
	if (failed != "" && !final) printf "%s", again > failed
	exit (count["fail"] > 0 || count["pass"] == 0)
}
