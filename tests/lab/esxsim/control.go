package main

// The control API: POST /verb with a JSON body, JSON back. Whoever reaches the port may do all of it: bind it to
// loopback.

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

type verb func(s *site, raw json.RawMessage) (interface{}, error)

var verbs = map[string]verb{}

func init() {
	verbs["verbs"] = func(*site, json.RawMessage) (interface{}, error) {
		names := []string{}
		for name := range verbs {
			names = append(names, name)
		}
		return names, nil
	}
	verbs["settings"] = changeSettings
	verbs["fault"] = addFault
	verbs["clear_faults"] = clearFaults
	verbs["faults"] = listFaults
	verbs["user"] = setUser
	verbs["expire_sessions"] = expireSessions
	verbs["calls"] = listCalls
	verbs["perf"] = feedPerf
	verbs["datastore"] = setDatastore
	verbs["datastores"] = listDatastores
	verbs["create_vm"] = createVM
	verbs["destroy_vm"] = destroyVM
	verbs["set_vm"] = setVM
	verbs["vms"] = listVMs
	verbs["state"] = vmState
	verbs["write"] = writeDisk
	verbs["read"] = readDisk
	verbs["sha256"] = hashDisk
	verbs["start_writer"] = startWriter
	verbs["stop_writer"] = stopWriter
	verbs["stall"] = longestStall
	verbs["snapshot"] = createSnapshot
	verbs["remove_snapshot"] = removeSnapshot
	verbs["revert"] = revertSnapshot
}

// controlHandler serves the verbs.
func (s *site) controlHandler(w http.ResponseWriter, r *http.Request) {
	answer := func(status int, val interface{}) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(val)
	}
	fn := verbs[strings.TrimPrefix(r.URL.Path, "/")]
	if fn == nil || r.Method != http.MethodPost {
		answer(http.StatusNotFound, map[string]string{"message": "no such verb: POST /verbs lists them"})
		return
	}
	var raw json.RawMessage
	if err := json.NewDecoder(r.Body).Decode(&raw); err != nil {
		raw = json.RawMessage("{}")
	}
	val, err := fn(s, raw)
	if err != nil {
		answer(http.StatusBadRequest, map[string]string{"message": err.Error()})
		return
	}
	if val == nil {
		val = map[string]string{}
	}
	answer(http.StatusOK, val)
}

// decode reads a body strictly: a misspelt key is an error.
func decode(raw json.RawMessage, into interface{}) error {
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

func changeSettings(s *site, raw json.RawMessage) (interface{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &s.settings, decode(raw, &s.settings)
}

func addFault(s *site, raw json.RawMessage) (interface{}, error) {
	f := &fault{release: make(chan struct{})}
	if err := decode(raw, f); err != nil {
		return nil, err
	}
	if !strings.Contains(" "+faultKinds+" ", " "+f.Kind+" ") {
		return nil, fmt.Errorf("kind %q: one of %s", f.Kind, faultKinds)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastFault++
	f.ID = s.lastFault
	s.faults = append(s.faults, f)
	return map[string]int{"id": f.ID}, nil
}

func clearFaults(s *site, raw json.RawMessage) (interface{}, error) {
	var q struct{ ID int }
	if err := decode(raw, &q); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var kept []*fault
	for _, f := range s.faults {
		if q.ID != 0 && f.ID != q.ID {
			kept = append(kept, f)
			continue
		}
		f.clear()
	}
	s.faults = kept
	return nil, nil
}

func listFaults(s *site, _ json.RawMessage) (interface{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []map[string]interface{}{}
	for _, f := range s.faults {
		out = append(out, map[string]interface{}{"id": f.ID, "kind": f.Kind, "method": f.Method, "vm": f.VM, "path": f.Path, "matched": f.matched, "used": f.Used})
	}
	return out, nil
}

func setUser(s *site, raw json.RawMessage) (interface{}, error) {
	u := &user{}
	if err := decode(raw, u); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.users[u.Name]; u.Password == "" && old != nil {
		u.Password = old.Password
	}
	s.users[u.Name] = u
	return nil, nil
}

func expireSessions(s *site, _ json.RawMessage) (interface{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.sessions)
	s.sessions = map[string]*session{}
	return map[string]int{"ended": n}, nil
}

func listCalls(s *site, raw json.RawMessage) (interface{}, error) {
	var q struct{ Reset bool }
	if err := decode(raw, &q); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.calls
	if q.Reset {
		s.calls = map[string]int{}
		return out, nil
	}
	c := map[string]int{}
	for k, n := range out {
		c[k] = n
	}
	return c, nil
}

func feedPerf(s *site, raw json.RawMessage) (interface{}, error) {
	in := map[string]map[string][]int64{}
	if err := decode(raw, &in); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for entity, counters := range in {
		s.perf[entity] = counters
	}
	return nil, nil
}

// settings are the site's behaviours that a test changes.
type settings struct {
	TaskDelayMs  int     `json:"task_delay_ms"`
	StunMs       int     `json:"stun_ms"` // how long a snapshot's creation or removal holds the guest, at least
	ClockOffsetS float64 `json:"clock_offset_s"`
	MaxAreas     int     `json:"max_areas"`
	LeaseS       int     `json:"lease_timeout_s"`
	IdleS        float64 `json:"idle_timeout_s"` // 0: sessions do not end by idleness
}

func read(fn func(settings) int64) int64 {
	theSite.mu.Lock()
	defer theSite.mu.Unlock()
	return fn(theSite.settings)
}

func (*settings) taskDelay() time.Duration {
	return time.Duration(read(func(x settings) int64 { return int64(x.TaskDelayMs) })) * time.Millisecond
}

func (*settings) maxAreas() int {
	return int(read(func(x settings) int64 { return int64(x.MaxAreas) }))
}

func (*settings) leaseTimeout() time.Duration {
	return time.Duration(read(func(x settings) int64 { return int64(x.LeaseS) })) * time.Second
}

// stun holds the guest; the caller has the machine's io lock.
func (s *site) stun() {
	time.Sleep(time.Duration(read(func(x settings) int64 { return int64(x.StunMs) })) * time.Millisecond)
}

// now is the host's clock.
func (s *site) now() time.Time {
	return time.Now().Add(time.Duration(read(func(x settings) int64 { return int64(x.ClockOffsetS * 1e9) })))
}
