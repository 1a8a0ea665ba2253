package main

// Changed-block tracking: which 64-KiB blocks were written since which change id.

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const trackedBlock = 64 << 10

type tracking struct {
	UUID     string
	Sequence int64
	Written  []int64 // per block, the sequence of its last write
}

func newTracking(size int64) *tracking {
	raw := make([]byte, 16)
	rand.Read(raw)
	return &tracking{UUID: fmt.Sprintf("% x-% x", raw[:8], raw[8:]), Sequence: 1, Written: make([]int64, (size+trackedBlock-1)/trackedBlock)}
}

func (t *tracking) id() string {
	if t == nil {
		return ""
	}
	return fmt.Sprintf("%s/%d", t.UUID, t.Sequence)
}

// freeze returns the state as of now and starts the next sequence.
func (t *tracking) freeze() *tracking {
	f := *t
	f.Written = append([]int64(nil), t.Written...)
	t.Sequence++
	return &f
}

func (t *tracking) mark(off, length int64) {
	if t == nil {
		return
	}
	for b := off / trackedBlock; b*trackedBlock < off+length; b++ {
		t.Written[b] = t.Sequence
	}
}

// startTracking follows config.changeTrackingEnabled; ESX does so at a stun. Both locks are held.
func (v *VirtualMachine) startTracking() {
	for _, d := range v.disks {
		if !isTrue(v.Config.ChangeTrackingEnabled) {
			d.tracking = nil
		} else if d.tracking == nil && d.head != nil && !d.independent {
			d.tracking = newTracking(d.head.size())
			saveTracking(d.head, d.tracking)
		}
	}
}

func saveTracking(l *layer, t *tracking) {
	if t == nil {
		return
	}
	raw, _ := json.Marshal(t)
	os.WriteFile(changeFile(l.file), raw, 0600)
	if l.desc.ChangeFile == "" {
		l.desc.ChangeFile = filepath.Base(changeFile(l.file))
		l.desc.write(l.file)
	}
}

// QueryChangedDiskAreas answers at most maxAreas at once, so that callers must loop.
func (v *VirtualMachine) QueryChangedDiskAreas(_ *simulator.Context, req *types.QueryChangedDiskAreas) soap.HasFault {
	theSite.inventory.Unlock() // io comes before the inventory
	v.io.Lock()
	info, fault := v.changedAreas(req)
	v.io.Unlock()
	theSite.inventory.Lock()
	if fault != nil {
		return &methods.QueryChangedDiskAreasBody{Fault_: simulator.Fault("Error caused by file or parameter", fault)}
	}
	return &methods.QueryChangedDiskAreasBody{Res: &types.QueryChangedDiskAreasResponse{Returnval: *info}}
}

// Lock and Unlock keep the registry from locking machines itself: some handlers wait for io.
func (v *VirtualMachine) Lock()   {}
func (v *VirtualMachine) Unlock() {}

func (v *VirtualMachine) changedAreas(req *types.QueryChangedDiskAreas) (*types.DiskChangeInfo, types.BaseMethodFault) {
	var head *layer
	var t *tracking
	if req.Snapshot != nil {
		s, ok := simulator.Map.Get(*req.Snapshot).(*VirtualMachineSnapshot)
		if !ok {
			return nil, &types.ManagedObjectNotFound{Obj: *req.Snapshot}
		}
		head, t = s.layers[req.DeviceKey], s.marks[req.DeviceKey]
	} else if d := v.disks[req.DeviceKey]; d != nil {
		head, t = d.head, d.tracking
	}
	if head == nil || req.StartOffset < 0 || req.StartOffset >= head.size() {
		return nil, &types.InvalidArgument{InvalidProperty: "deviceKey"}
	}
	if t == nil {
		return nil, &types.FileFault{File: head.file}
	}
	var areas []byteRange
	if req.ChangeId == "*" {
		areas = head.allocated(trackedBlock)
	} else {
		uuid, sequence := splitChangeID(req.ChangeId)
		if uuid != t.UUID {
			return nil, &types.FileFault{File: head.file}
		}
		used := make([]bool, len(t.Written))
		for i, s := range t.Written {
			used[i] = s > sequence
		}
		areas = ranges(used, trackedBlock, head.size())
	}
	return page(areas, req.StartOffset, head.size(), theSite.settings.maxAreas()), nil
}

func splitChangeID(id string) (string, int64) {
	i := strings.LastIndex(id, "/")
	if i < 0 {
		return "", 0
	}
	var n int64
	fmt.Sscan(id[i+1:], &n)
	return id[:i], n
}

func page(areas []byteRange, start, size int64, limit int) *types.DiskChangeInfo {
	info := &types.DiskChangeInfo{StartOffset: start, Length: size - start}
	for _, a := range areas {
		if a.start+a.length <= start {
			continue
		}
		if len(info.ChangedArea) == limit {
			info.Length = a.start - start
			break
		}
		info.ChangedArea = append(info.ChangedArea, types.DiskChangeExtent{Start: a.start, Length: a.length})
	}
	return info
}
