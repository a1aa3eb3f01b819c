package main

import (
	"context"
	osexec "os/exec"
	"strings"
	"time"
)

// gitPatience bounds each question to git.
const gitPatience = 3 * time.Second

// gitLabels are labels that say what commit is checked out in dir: git_sha, branch,
// and git_dirty where files differ from it. There are none outside of git.
func gitLabels(dir string) map[string]string {
	labels := map[string]string{}
	sha := git(dir, "rev-parse", "--verify", "--quiet", "HEAD")
	if sha == "" {
		return labels
	}
	labels["git_sha"] = sha
	if branch := git(dir, "symbolic-ref", "--short", "--quiet", "HEAD"); branch != "" {
		labels["branch"] = shorten(printable(branch), 256)
	}
	if git(dir, "status", "--porcelain", "--untracked-files=no") != "" {
		labels["git_dirty"] = "true"
	}
	return labels
}

// git is what a git command prints in dir, "" when it fails.
func git(dir string, args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), gitPatience)
	defer cancel()
	cmd := osexec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
