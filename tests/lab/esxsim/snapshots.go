package main

// Snapshots: creation freezes the heads, removal merges what nobody needs any more. The one rule for removal and
// consolidation is tidy: a layer that neither a snapshot nor the machine stands on is merged with its only child, or
// dropped if it has none; one with several children stays, because each of them needs it.

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// VirtualMachineSnapshot is one node of a machine's tree.
type VirtualMachineSnapshot struct {
	mo.VirtualMachineSnapshot
	vm          *VirtualMachine
	parent      *VirtualMachineSnapshot
	id          int32
	name        string
	description string
	created     time.Time
	power       types.VirtualMachinePowerState
	quiesced    bool
	layers      map[int32]*layer
	marks       map[int32]*tracking
	dataFile    string // .vmsn
	memoryFile  string // .vmem, empty without memory
}

type snapshotRequest struct {
	name, description string
	memory, quiesce   bool
}

// snapshot freezes the machine's disks; the caller holds no lock.
func (v *VirtualMachine) snapshot(r snapshotRequest) (types.AnyType, types.BaseMethodFault) {
	v.io.Lock()
	defer v.io.Unlock()
	if fault := v.snapshotFault(r); fault != nil {
		return nil, fault
	}
	theSite.stun()
	s := v.newSnapshot(r)
	for key, d := range v.disks {
		if d.head == nil || d.independent {
			continue
		}
		frozen := d.head
		child, err := frozen.addDelta(v.freeName(frozen), v.usesSeSparse(frozen.dsPath))
		if err != nil {
			return nil, &types.FileFault{File: frozen.dsPath}
		}
		v.layers[child.dsPath], d.head, s.layers[key] = child, child, frozen
		if d.tracking != nil {
			s.marks[key] = d.tracking.freeze()
			saveTracking(child, d.tracking)
		}
	}
	v.snapshots, v.current = append(v.snapshots, s), s
	simulator.Map.Put(s)
	v.publish()
	return s.Self, nil
}

// newSnapshot makes the node and its files; the io lock is held.
func (v *VirtualMachine) newSnapshot(r snapshotRequest) *VirtualMachineSnapshot {
	theSite.inventory.Lock()
	defer theSite.inventory.Unlock()
	v.startTracking()
	v.lastID++
	s := &VirtualMachineSnapshot{vm: v, parent: v.current, id: v.lastID, name: r.name, description: r.description, created: theSite.now(),
		power: types.VirtualMachinePowerStatePoweredOff, layers: map[int32]*layer{}, marks: map[int32]*tracking{}}
	s.Self, s.Vm = newRef("VirtualMachineSnapshot", v.Self.Value+"-snapshot"), v.Self
	s.dataFile = fmt.Sprintf("%s-Snapshot%d.vmsn", v.stem(), s.id)
	os.WriteFile(filepath.Join(v.dir(), s.dataFile), make([]byte, 28672), 0600)
	on := v.powerState() == types.VirtualMachinePowerStatePoweredOn
	if r.memory && on {
		s.power = types.VirtualMachinePowerStatePoweredOn
		s.memoryFile = fmt.Sprintf("%s-Snapshot%d.vmem", v.stem(), s.id)
		makeSparse(filepath.Join(v.dir(), s.memoryFile), int64(v.Config.Hardware.MemoryMB)<<20)
	}
	s.quiesced = r.quiesce && !r.memory && on && !v.denyQuiet && v.Guest.ToolsRunningStatus == toolsRunning
	deepCopy(v.Config, &s.Config)
	return s
}

// snapshotFault says why ESX would refuse; the io lock is held.
func (v *VirtualMachine) snapshotFault(r snapshotRequest) types.BaseMethodFault {
	theSite.inventory.Lock()
	defer theSite.inventory.Unlock()
	if fault := v.incompatibleDevice(); fault != nil {
		return fault
	}
	if r.quiesce && v.failQuiet && v.powerState() == on {
		return &types.ApplicationQuiesceFault{}
	}
	for _, d := range v.disks {
		if d.head == nil || d.independent {
			continue
		}
		ds := storeOf(d.head.dsPath)
		ds.recount()
		if ds.free() < reserve {
			return &types.NoDiskSpace{FileFault: types.FileFault{File: d.head.dsPath}, Datastore: ds.name}
		}
	}
	return nil
}

var childNumber = regexp.MustCompile(`(-\d{6})?\.vmdk$`)

// freeName is the next "-00000N.vmdk" beside a layer.
func (v *VirtualMachine) freeName(l *layer) string {
	stem := childNumber.ReplaceAllString(path.Base(l.dsPath), "")
	for i := 1; ; i++ {
		name := fmt.Sprintf("%s/%s-%06d.vmdk", path.Dir(l.dsPath), stem, i)
		if _, err := os.Stat(localPath(name)); err != nil {
			return name
		}
	}
}

// drop takes snapshots out of the tree; their children move up. The io lock is held.
func (v *VirtualMachine) drop(gone map[*VirtualMachineSnapshot]bool) {
	alive := func(s *VirtualMachineSnapshot) *VirtualMachineSnapshot {
		for s != nil && gone[s] {
			s = s.parent
		}
		return s
	}
	var kept []*VirtualMachineSnapshot
	for _, s := range v.snapshots {
		if !gone[s] {
			s.parent = alive(s.parent)
			kept = append(kept, s)
		}
	}
	v.current, v.snapshots = alive(v.current), kept
	for s := range gone {
		os.Remove(filepath.Join(v.dir(), s.dataFile))
		if s.memoryFile != "" {
			os.Remove(filepath.Join(v.dir(), s.memoryFile))
		}
	}
}

// remove drops snapshots and merges, unless the merge is to be left to a consolidation.
func (v *VirtualMachine) remove(gone map[*VirtualMachineSnapshot]bool, leaveMerge bool) (types.AnyType, types.BaseMethodFault) {
	v.io.Lock()
	defer v.io.Unlock()
	for s := range gone {
		if simulator.Map.Get(s.Self) == nil {
			return nil, &types.ManagedObjectNotFound{Obj: s.Self}
		}
	}
	theSite.stun()
	v.drop(gone)
	for s := range gone {
		theSite.inventory.Lock()
		simulator.Map.Remove(s.Self)
		theSite.inventory.Unlock()
	}
	if leaveMerge {
		theSite.update(v, change("runtime.consolidationNeeded", true), change("summary.runtime.consolidationNeeded", true))
		v.publish()
		return nil, nil
	}
	return v.consolidate()
}

// consolidate tidies; the io lock is held.
func (v *VirtualMachine) consolidate() (types.AnyType, types.BaseMethodFault) {
	err := v.tidy()
	theSite.update(v, change("runtime.consolidationNeeded", err != nil), change("summary.runtime.consolidationNeeded", err != nil))
	v.publish()
	if err != nil {
		return nil, &types.FileFault{File: err.Error()}
	}
	return nil, nil
}

// tidy merges and drops layers until each one that is left is needed.
func (v *VirtualMachine) tidy() error {
	for {
		children := map[*layer][]*layer{}
		for _, l := range v.layers {
			if l.parent != nil {
				children[l.parent] = append(children[l.parent], l)
			}
		}
		l := v.superfluous(children)
		if l == nil {
			return nil
		}
		if len(children[l]) == 0 {
			delete(v.layers, l.dsPath)
			l.remove()
			continue
		}
		if err := v.mergeChild(children[l][0], children); err != nil {
			return err
		}
	}
}

func (v *VirtualMachine) superfluous(children map[*layer][]*layer) *layer {
	used := map[*layer]bool{}
	for _, d := range v.disks {
		used[d.head] = true
	}
	for _, s := range v.snapshots {
		for _, l := range s.layers {
			used[l] = true
		}
	}
	for _, l := range v.layers {
		if !used[l] && (len(children[l]) == 1 || len(children[l]) == 0 && l.parent != nil) {
			return l
		}
	}
	return nil
}

// mergeChild folds a layer into its parent, which takes its place everywhere.
func (v *VirtualMachine) mergeChild(child *layer, children map[*layer][]*layer) error {
	if err := child.mergeDown(); err != nil {
		return err
	}
	for _, grandchild := range children[child] {
		if err := grandchild.reparent(child.parent); err != nil {
			return err
		}
	}
	for _, d := range v.disks {
		if d.head == child {
			d.head = child.parent
			saveTracking(d.head, d.tracking)
		}
	}
	for _, s := range v.snapshots {
		for key, l := range s.layers {
			if l == child {
				s.layers[key] = child.parent
			}
		}
	}
	delete(v.layers, child.dsPath)
	child.remove()
	return nil
}

// revert gives the machine the snapshot's content, on new deltas.
func (v *VirtualMachine) revert(s *VirtualMachineSnapshot) (types.AnyType, types.BaseMethodFault) {
	v.io.Lock()
	defer v.io.Unlock()
	for key, frozen := range s.layers {
		child, err := frozen.addDelta(v.freeName(frozen), v.usesSeSparse(frozen.dsPath))
		if err != nil {
			return nil, &types.FileFault{File: frozen.dsPath}
		}
		v.layers[child.dsPath] = child
		if v.disks[key] == nil {
			v.disks[key] = &disk{key: key}
		}
		v.disks[key].head, v.disks[key].tracking = child, nil // a revert starts change tracking anew
	}
	if err := v.tidy(); err != nil {
		return nil, &types.FileFault{File: err.Error()}
	}
	v.current = s
	theSite.inventory.Lock()
	defer theSite.inventory.Unlock()
	v.Config.Hardware.Device = append([]types.BaseVirtualDevice(nil), s.Config.Hardware.Device...)
	v.startTracking()
	v.setPower(s.power)
	v.render()
	return nil, nil
}
