package main

// Control verbs about machines and datastores.

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// lockedVM looks a machine up under the inventory lock.
func (s *site) lockedVM(name string) (*VirtualMachine, error) {
	s.inventory.Lock()
	defer s.inventory.Unlock()
	return findVM(name)
}

// both runs fn with the machine's two locks held.
func (v *VirtualMachine) both(fn func() error) error {
	v.io.Lock()
	defer v.io.Unlock()
	theSite.inventory.Lock()
	defer theSite.inventory.Unlock()
	return fn()
}

func createVM(s *site, raw json.RawMessage) (interface{}, error) {
	spec := &vmSpec{}
	if err := decode(raw, spec); err != nil {
		return nil, err
	}
	v, err := s.create(spec)
	if err != nil {
		return nil, err
	}
	return v.report(), nil
}

func destroyVM(s *site, raw json.RawMessage) (interface{}, error) {
	var q struct{ VM string }
	if err := decode(raw, &q); err != nil {
		return nil, err
	}
	v, err := s.lockedVM(q.VM)
	if err != nil {
		return nil, err
	}
	v.stopWriter()
	if err = v.both(func() error { v.setPower(off); return nil }); err != nil {
		return nil, err
	}
	s.inventory.Lock()
	r, err := methods.Destroy_Task(context.Background(), s.client, &types.Destroy_Task{This: v.Self})
	s.inventory.Unlock()
	if err != nil {
		return nil, err
	}
	return nil, s.finished(r.Returnval)
}

// finished waits for a task of ours; no lock is held.
func (s *site) finished(ref types.ManagedObjectReference) error {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		s.inventory.Lock()
		info := simulator.Map.Get(ref).(*simulator.Task).Info
		s.inventory.Unlock()
		switch info.State {
		case types.TaskInfoStateSuccess:
			return nil
		case types.TaskInfoStateError:
			return fmt.Errorf("%s", typeName(info.Error.Fault))
		}
	}
	return fmt.Errorf("the task has not ended within a minute")
}

func listVMs(s *site, _ json.RawMessage) (interface{}, error) {
	s.inventory.Lock()
	defer s.inventory.Unlock()
	out := []map[string]string{}
	for _, e := range simulator.Map.All("VirtualMachine") {
		v := e.(*VirtualMachine)
		out = append(out, map[string]string{"name": v.Name, "moid": v.Self.Value, "path": v.home, "power": string(v.powerState())})
	}
	sort.Slice(out, func(i, j int) bool { return out[i]["moid"] < out[j]["moid"] })
	return out, nil
}

func vmState(s *site, raw json.RawMessage) (interface{}, error) {
	var q struct{ VM string }
	if err := decode(raw, &q); err != nil {
		return nil, err
	}
	v, err := s.lockedVM(q.VM)
	if err != nil {
		return nil, err
	}
	return v.report(), nil
}

// report is the truth about a machine, from its disks and files rather than from the API's view.
func (v *VirtualMachine) report() map[string]interface{} {
	out := map[string]interface{}{}
	v.both(func() error {
		disks := []map[string]interface{}{}
		for _, d := range virtualDisks(v.Config.Hardware.Device) {
			row := map[string]interface{}{"key": d.Key, "node": node(v.Config.Hardware.Device, d), "size": d.CapacityInKB * 1024, "chain": []string{}}
			if x := v.disks[d.Key]; x != nil && x.head != nil {
				row["chain"] = x.head.chain()
			}
			disks = append(disks, row)
		}
		snapshots := []map[string]interface{}{}
		for _, s := range v.snapshots {
			row := map[string]interface{}{"moid": s.Self.Value, "id": s.id, "name": s.name, "description": s.description, "quiesced": s.quiesced, "parent": nil}
			if s.parent != nil {
				row["parent"] = s.parent.Self.Value
			}
			snapshots = append(snapshots, row)
		}
		var current interface{}
		if v.current != nil {
			current = v.current.Self.Value
		}
		files := []string{}
		if entries, err := os.ReadDir(v.dir()); err == nil {
			for _, e := range entries {
				files = append(files, e.Name())
			}
		}
		for key, val := range map[string]interface{}{"name": v.Name, "moid": v.Self.Value, "path": v.home, "dir": v.dir(), "power": v.powerState(),
			"instance_uuid": v.Config.InstanceUuid, "bios_uuid": v.Config.Uuid, "host": v.Runtime.Host.Value, "disks": disks, "snapshots": snapshots, "current": current,
			"consolidation_needed": isTrue(v.Runtime.ConsolidationNeeded), "files": files, "writes": v.writes, "max_stall_ms": ms(v.stall)} {
			out[key] = val
		}
		return nil
	})
	return out
}

// chain lists the layers, base first.
func (l *layer) chain() []string {
	if l == nil {
		return nil
	}
	return append(l.parent.chain(), l.dsPath)
}

func setDatastore(s *site, raw json.RawMessage) (interface{}, error) {
	var q struct {
		Name       string
		CapacityMB *int64 `json:"capacity_mb"`
		FreeMB     *int64 `json:"free_mb"`
		SeSparse   *bool  `json:"sesparse"`
		Type       string
	}
	if err := decode(raw, &q); err != nil {
		return nil, err
	}
	d := s.stores[q.Name]
	if d == nil {
		return nil, fmt.Errorf("no datastore %q", q.Name)
	}
	if q.CapacityMB != nil {
		atomic.StoreInt64(&d.capacity, *q.CapacityMB<<20)
	}
	if q.FreeMB != nil {
		d.recount()
		atomic.StoreInt64(&d.capacity, atomic.LoadInt64(&d.used)+*q.FreeMB<<20)
	}
	if q.SeSparse != nil {
		n := int32(0)
		if *q.SeSparse {
			n = 1
		}
		atomic.StoreInt32(&d.seSparse, n)
	}
	s.inventory.Lock()
	if q.Type != "" {
		simulator.Map.Get(d.ref).(*simulator.Datastore).Summary.Type = q.Type
	}
	s.publishSpace()
	s.inventory.Unlock()
	return d.report(), nil
}

func (d *store) report() map[string]interface{} {
	root, _ := filepath.Abs(d.root)
	return map[string]interface{}{"name": d.name, "root": root, "uuid": d.uuid, "capacity": atomic.LoadInt64(&d.capacity), "free": d.free()}
}

func listDatastores(s *site, _ json.RawMessage) (interface{}, error) {
	out := []map[string]interface{}{}
	for _, d := range s.stores {
		d.recount()
		out = append(out, d.report())
	}
	sort.Slice(out, func(i, j int) bool { return out[i]["name"].(string) < out[j]["name"].(string) })
	return out, nil
}
