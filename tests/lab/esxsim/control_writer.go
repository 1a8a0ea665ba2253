package main

// A guest that keeps writing, and how long its writes had to wait.

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"time"
)

// writer is a guest that keeps writing.
type writer struct {
	stop chan struct{}
	done chan struct{}
	n    int64
	took time.Duration
	err  error
}

func startWriter(s *site, raw json.RawMessage) (interface{}, error) {
	q := struct {
		VM    string
		Disk  int
		Rate  float64 // writes a second; 0: as fast as it goes
		Block int
		Seed  int64
	}{Block: 4096, Rate: 1000}
	if err := decode(raw, &q); err != nil {
		return nil, err
	}
	v, d, err := s.diskOf(q.VM, q.Disk)
	if err != nil {
		return nil, err
	}
	v.stopWriter()
	w := &writer{stop: make(chan struct{}), done: make(chan struct{})}
	v.io.Lock()
	v.writer, v.stall = w, 0
	v.io.Unlock()
	go w.run(v, d, q.Rate, q.Block, rand.New(rand.NewSource(q.Seed)))
	return nil, nil
}

func (w *writer) run(v *VirtualMachine, d *disk, rate float64, block int, random *rand.Rand) {
	defer close(w.done)
	began := time.Now()
	v.io.Lock()
	blocks := d.head.size() / int64(block)
	v.io.Unlock()
	p := make([]byte, block)
	for {
		select {
		case <-w.stop:
			w.took = time.Since(began)
			return
		default:
		}
		if ahead := time.Duration(float64(w.n)/rate*1e9) - time.Since(began); rate > 0 && ahead > time.Millisecond {
			time.Sleep(ahead)
		}
		random.Read(p)
		if w.err = v.guestWrite(d, random.Int63n(blocks)*int64(block), p); w.err != nil {
			w.took = time.Since(began)
			return
		}
		w.n++
	}
}

// stopWriter ends the machine's writer and returns it, nil if there is none.
func (v *VirtualMachine) stopWriter() *writer {
	v.io.Lock()
	w := v.writer
	v.writer = nil
	v.io.Unlock()
	if w != nil {
		close(w.stop)
		<-w.done
	}
	return w
}

func stopWriter(s *site, raw json.RawMessage) (interface{}, error) {
	var q struct{ VM string }
	if err := decode(raw, &q); err != nil {
		return nil, err
	}
	v, err := s.lockedVM(q.VM)
	if err != nil {
		return nil, err
	}
	w := v.stopWriter()
	if w == nil {
		return nil, fmt.Errorf("%s has no writer", q.VM)
	}
	v.io.Lock()
	defer v.io.Unlock()
	message := ""
	if w.err != nil {
		message = w.err.Error()
	}
	return map[string]interface{}{"writes": w.n, "seconds": w.took.Seconds(), "max_stall_ms": ms(v.stall), "error": message}, nil
}

func longestStall(s *site, raw json.RawMessage) (interface{}, error) {
	var q struct {
		VM    string
		Reset bool
	}
	if err := decode(raw, &q); err != nil {
		return nil, err
	}
	v, err := s.lockedVM(q.VM)
	if err != nil {
		return nil, err
	}
	v.io.Lock()
	defer v.io.Unlock()
	out := map[string]float64{"max_stall_ms": ms(v.stall)}
	if q.Reset {
		v.stall = 0
	}
	return out, nil
}
