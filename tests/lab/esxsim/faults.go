package main

// Faults on demand.

import (
	"path"
	"strings"
	"sync"
	"time"
)

// fault is one injected failure. It matches by the method's glob, the machine and a part of the path.
type fault struct {
	ID         int    `json:"id"`
	Method     string `json:"method"` // glob: a SOAP method, or GET, PUT, NFC for transfers
	VM         string `json:"vm"`
	Path       string `json:"path"`
	Kind       string `json:"kind"`
	Fault      string `json:"fault"`
	Message    string `json:"message"`
	Status     int    `json:"status"`
	DelayMs    int    `json:"delay_ms"`
	AfterBytes int64  `json:"after_bytes"`
	RateKBs    int64  `json:"rate_kbs"`
	Skip       int    `json:"skip"`  // how many matches go unharmed first
	Count      int    `json:"count"` // how many are harmed then; 0: all
	Used       int    `json:"used"`
	matched    int
	release    chan struct{}
	once       sync.Once
}

var faultKinds = "soap task hang consolidation lost http drop delay stall short lie ignore_range corrupt rate"

// wait blocks a hanging task until the fault is cleared.
func (f *fault) wait() { <-f.release }

func (f *fault) clear() { f.once.Do(func() { close(f.release) }) }

func (f *fault) sleep() { time.Sleep(time.Duration(f.DelayMs) * time.Millisecond) }

// match finds the fault for a call and counts it; vm lists the machine's names.
func (s *site) match(method, where string, vm ...string) *fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		if !f.hits(method, where, vm) || f.Count > 0 && f.Used >= f.Count {
			continue
		}
		if f.matched++; f.matched <= f.Skip {
			continue
		}
		f.Used++
		return f
	}
	return nil
}

func (f *fault) hits(method, where string, vm []string) bool {
	if f.Method != "" {
		if ok, _ := path.Match(f.Method, method); !ok {
			return false
		}
	} else if where == "" {
		return false // a fault without a method is for transfers
	}
	if f.Path != "" && !strings.Contains(where, f.Path) {
		return false
	}
	if f.VM == "" {
		return true
	}
	for _, name := range vm {
		if name == f.VM {
			return true
		}
	}
	return false
}

// takeConsolidationFault says whether the removal at hand is to leave its merge undone; the inventory lock is held.
func (s *site) takeConsolidationFault() bool {
	if s.injected != nil && s.injected.Kind == "consolidation" {
		s.injected = nil
		return true
	}
	return false
}
