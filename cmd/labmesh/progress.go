package main

import (
	"fmt"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress shows on a terminal how far many tasks are. Elsewhere it is silent.
type progress struct {
	bar    *progressbar.ProgressBar
	failed int
}

const progressEvery = 100 * time.Millisecond

func (a *app) newProgress(total int, what string) *progress {
	if !isTerminal(a.err) {
		return &progress{}
	}
	return &progress{bar: progressbar.NewOptions(total,
		progressbar.OptionSetWriter(a.err),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(),
		progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(progressEvery),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSetRenderBlankState(true),
	)}
}

// one counts a task that ended.
func (p *progress) one(ok bool, what string) {
	if !ok {
		p.failed++
	}
	if p.bar == nil {
		return
	}
	if p.failed > 0 {
		p.bar.Describe(fmt.Sprintf("%s, %d failed", what, p.failed))
	}
	_ = p.bar.Add(1) // a bar that cannot be drawn is no reason to stop
}

// end takes the bar away.
func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Clear() // as above
	}
}
