package main

// render brings the API's view and the small files (.vmx, .vmsd) in step with the machine's disks and snapshots.

import (
	"path"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// publish renders; the caller holds the io lock only.
func (v *VirtualMachine) publish() {
	theSite.inventory.Lock()
	defer theSite.inventory.Unlock()
	v.render()
}

// render needs both locks.
func (v *VirtualMachine) render() {
	devices := v.devicesWith(v.Config.Hardware.Device, func(key int32) (*layer, string) {
		d := v.disks[key]
		if d == nil || d.head == nil {
			return nil, ""
		}
		return d.head, d.tracking.id()
	})
	for _, s := range v.snapshots {
		s := s
		s.Config.Hardware.Device = v.devicesWith(s.Config.Hardware.Device, func(key int32) (*layer, string) {
			return s.layers[key], s.marks[key].id()
		})
		s.ChildSnapshot = nil
		for _, child := range v.childrenOf(s) {
			s.ChildSnapshot = append(s.ChildSnapshot, child.Self)
		}
	}
	changes := []types.PropertyChange{change("config.hardware.device", devices), change("config.changeVersion", v.nextEdition())}
	changes = append(changes, v.snapshotProperties()...)
	simulator.Map.Update(v, changes)
	v.useDatastores()
	v.writeVMX()
	v.writeVMSD()
	v.refresh()
	v.measure()
	v.Summary.Config.NumVirtualDisks = int32(len(virtualDisks(v.Config.Hardware.Device)))
}

// measure counts the space of the machine's folders again.
func (v *VirtualMachine) measure() {
	files := map[string]string{path.Dir(v.home): v.home}
	for _, l := range v.layers {
		files[path.Dir(l.dsPath)] = l.dsPath
	}
	for _, dsPath := range files {
		storeOf(dsPath).recountFolder(localPath(dsPath))
	}
	theSite.publishSpace()
}

// useDatastores lists the machine at every datastore that holds one of its files.
func (v *VirtualMachine) useDatastores() {
	paths := []string{v.home}
	for _, l := range v.layers {
		paths = append(paths, l.dsPath)
	}
	for _, p := range paths {
		d := storeOf(p)
		if d == nil || simulator.FindReference(v.Datastore, d.ref) != nil {
			continue
		}
		v.Datastore = append(v.Datastore, d.ref)
		x := simulator.Map.Get(d.ref).(*simulator.Datastore)
		if simulator.FindReference(x.Vm, v.Self) == nil {
			x.Vm = append(x.Vm, v.Self)
		}
	}
}

// devicesWith copies a device list, the disks' backings rebuilt from their layers.
func (v *VirtualMachine) devicesWith(devices []types.BaseVirtualDevice, layerOf func(int32) (*layer, string)) []types.BaseVirtualDevice {
	out := make([]types.BaseVirtualDevice, len(devices))
	for i, dev := range devices {
		out[i] = dev
		d, ok := dev.(*types.VirtualDisk)
		if !ok || flatBacking(d) == nil {
			continue
		}
		l, changeID := layerOf(d.Key)
		if l == nil {
			continue
		}
		c := *d
		b := backingOf(l, *flatBacking(d))
		b.ChangeId = changeID
		c.Backing = b
		c.CapacityInBytes, c.CapacityInKB = l.size(), l.size()/1024
		out[i] = &c
	}
	return out
}

// backingOf builds the chain of backings; mode, UUID and sharing come from the template.
func backingOf(l *layer, template types.VirtualDiskFlatVer2BackingInfo) *types.VirtualDiskFlatVer2BackingInfo {
	b := template
	b.FileName, b.Parent, b.DeltaDiskFormat, b.ContentId, b.ChangeId = l.dsPath, nil, "", l.desc.CID+l.desc.CID+l.desc.CID+l.desc.CID, ""
	if d := storeOf(l.dsPath); d != nil {
		ref := d.ref
		b.Datastore = &ref
	}
	thin := l.base().desc.Thin
	b.ThinProvisioned = &thin
	if l.parent != nil {
		b.Parent, b.DeltaDiskFormat = backingOf(l.parent, template), "redoLogFormat"
		if l.desc.CreateType == "seSparse" {
			b.DeltaDiskFormat = "seSparseFormat"
		}
	}
	return &b
}

func (l *layer) base() *layer {
	for l.parent != nil {
		l = l.parent
	}
	return l
}

func (v *VirtualMachine) childrenOf(parent *VirtualMachineSnapshot) []*VirtualMachineSnapshot {
	var out []*VirtualMachineSnapshot
	for _, s := range v.snapshots {
		if s.parent == parent {
			out = append(out, s)
		}
	}
	return out
}

func (v *VirtualMachine) tree(parent *VirtualMachineSnapshot) []types.VirtualMachineSnapshotTree {
	var out []types.VirtualMachineSnapshotTree
	for _, s := range v.childrenOf(parent) {
		out = append(out, types.VirtualMachineSnapshotTree{Snapshot: s.Self, Vm: v.Self, Name: s.name, Description: s.description, Id: s.id,
			CreateTime: s.created, State: s.power, Quiesced: s.quiesced, ReplaySupported: types.NewBool(false), ChildSnapshotList: v.tree(s)})
	}
	return out
}

func (v *VirtualMachine) snapshotProperties() []types.PropertyChange {
	roots := []types.ManagedObjectReference{}
	if len(v.snapshots) == 0 {
		return []types.PropertyChange{change("snapshot", nil), change("rootSnapshot", roots)}
	}
	info := &types.VirtualMachineSnapshotInfo{RootSnapshotList: v.tree(nil)}
	for _, t := range info.RootSnapshotList {
		roots = append(roots, t.Snapshot)
	}
	if v.current != nil {
		ref := v.current.Self
		info.CurrentSnapshot = &ref
	}
	return []types.PropertyChange{change("snapshot", info), change("rootSnapshot", roots)}
}
