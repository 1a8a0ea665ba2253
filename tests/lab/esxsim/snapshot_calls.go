package main

// The snapshot methods of the API.

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

func (v *VirtualMachine) CreateSnapshotTask(_ *simulator.Context, req *types.CreateSnapshot_Task) soap.HasFault {
	r := snapshotRequest{req.Name, req.Description, req.Memory, req.Quiesce}
	ref := theSite.task(v, "createSnapshot", func() (types.AnyType, types.BaseMethodFault) { return v.snapshot(r) })
	return &methods.CreateSnapshot_TaskBody{Res: &types.CreateSnapshot_TaskResponse{Returnval: ref}}
}

func (v *VirtualMachine) CreateSnapshotExTask(_ *simulator.Context, req *types.CreateSnapshotEx_Task) soap.HasFault {
	r := snapshotRequest{req.Name, req.Description, req.Memory, req.QuiesceSpec != nil}
	ref := theSite.task(v, "createSnapshotEx", func() (types.AnyType, types.BaseMethodFault) { return v.snapshot(r) })
	return &methods.CreateSnapshotEx_TaskBody{Res: &types.CreateSnapshotEx_TaskResponse{Returnval: ref}}
}

func (s *VirtualMachineSnapshot) RemoveSnapshotTask(_ *simulator.Context, req *types.RemoveSnapshot_Task) soap.HasFault {
	leave := theSite.takeConsolidationFault()
	ref := theSite.task(s.vm, "removeSnapshot", func() (types.AnyType, types.BaseMethodFault) {
		return s.vm.remove(s.vm.subtree(s, req.RemoveChildren), leave)
	})
	return &methods.RemoveSnapshot_TaskBody{Res: &types.RemoveSnapshot_TaskResponse{Returnval: ref}}
}

// subtree is a snapshot, with everything below it if asked.
func (v *VirtualMachine) subtree(s *VirtualMachineSnapshot, below bool) map[*VirtualMachineSnapshot]bool {
	v.io.Lock()
	defer v.io.Unlock()
	out := map[*VirtualMachineSnapshot]bool{s: true}
	for _, x := range v.snapshots {
		for p := x.parent; below && p != nil; p = p.parent {
			if p == s {
				out[x] = true
			}
		}
	}
	return out
}

func (v *VirtualMachine) RemoveAllSnapshotsTask(_ *simulator.Context, _ *types.RemoveAllSnapshots_Task) soap.HasFault {
	leave := theSite.takeConsolidationFault()
	ref := theSite.task(v, "removeAllSnapshots", func() (types.AnyType, types.BaseMethodFault) { return v.remove(v.allSnapshots(), leave) })
	return &methods.RemoveAllSnapshots_TaskBody{Res: &types.RemoveAllSnapshots_TaskResponse{Returnval: ref}}
}

func (v *VirtualMachine) allSnapshots() map[*VirtualMachineSnapshot]bool {
	v.io.Lock()
	defer v.io.Unlock()
	out := map[*VirtualMachineSnapshot]bool{}
	for _, s := range v.snapshots {
		out[s] = true
	}
	return out
}

// Lock and Unlock keep the registry from locking snapshots itself: RenameSnapshot waits for io.
func (s *VirtualMachineSnapshot) Lock()   {}
func (s *VirtualMachineSnapshot) Unlock() {}

func (s *VirtualMachineSnapshot) RenameSnapshot(_ *simulator.Context, req *types.RenameSnapshot) soap.HasFault {
	name, description := req.Name, req.Description
	// A handler holds the inventory lock, which comes after io.
	theSite.inventory.Unlock()
	s.vm.io.Lock()
	if name != "" {
		s.name = name
	}
	if description != "" {
		s.description = description
	}
	s.vm.publish()
	s.vm.io.Unlock()
	theSite.inventory.Lock()
	return &methods.RenameSnapshotBody{Res: new(types.RenameSnapshotResponse)}
}

func (s *VirtualMachineSnapshot) RevertToSnapshotTask(_ *simulator.Context, _ *types.RevertToSnapshot_Task) soap.HasFault {
	ref := theSite.task(s.vm, "revertToSnapshot", func() (types.AnyType, types.BaseMethodFault) { return s.vm.revert(s) })
	return &methods.RevertToSnapshot_TaskBody{Res: &types.RevertToSnapshot_TaskResponse{Returnval: ref}}
}

func (v *VirtualMachine) RevertToCurrentSnapshotTask(_ *types.RevertToCurrentSnapshot_Task) soap.HasFault {
	ref := theSite.task(v, "revertToCurrentSnapshot", func() (types.AnyType, types.BaseMethodFault) {
		v.io.Lock()
		s := v.current
		v.io.Unlock()
		if s == nil {
			return nil, &types.NotFound{}
		}
		return v.revert(s)
	})
	return &methods.RevertToCurrentSnapshot_TaskBody{Res: &types.RevertToCurrentSnapshot_TaskResponse{Returnval: ref}}
}

func (v *VirtualMachine) ConsolidateVMDisksTask(_ *simulator.Context, _ *types.ConsolidateVMDisks_Task) soap.HasFault {
	leave := theSite.takeConsolidationFault()
	ref := theSite.task(v, "consolidateVMDisks", func() (types.AnyType, types.BaseMethodFault) {
		v.io.Lock()
		defer v.io.Unlock()
		if leave {
			return nil, &types.FileLocked{}
		}
		return v.consolidate()
	})
	return &methods.ConsolidateVMDisks_TaskBody{Res: &types.ConsolidateVMDisks_TaskResponse{Returnval: ref}}
}

// incompatibleDevice is the fault of a device that rules snapshots out; the inventory lock is held.
func (v *VirtualMachine) incompatibleDevice() types.BaseMethodFault {
	wrap := func(f types.BaseMethodFault) types.BaseMethodFault {
		return &types.SnapshotIncompatibleDeviceInVm{Fault: types.LocalizedMethodFault{Fault: f, LocalizedMessage: "device"}}
	}
	for _, dev := range v.Config.Hardware.Device {
		switch d := dev.(type) {
		case *types.VirtualPCIPassthrough:
			if v.powerState() == types.VirtualMachinePowerStatePoweredOn {
				return wrap(&types.DeviceNotSupported{Device: "PCI passthrough"})
			}
		case types.BaseVirtualSCSIController:
			if d.GetVirtualSCSIController().SharedBus != types.VirtualSCSISharingNoSharing {
				return wrap(&types.SharedBusControllerNotSupported{})
			}
		case *types.VirtualDisk:
			b, ok := d.Backing.(*types.VirtualDiskRawDiskMappingVer1BackingInfo)
			if ok && b.CompatibilityMode == "physicalMode" && !isIndependent(b.DiskMode) {
				return wrap(&types.PhysCompatRDMNotSupported{})
			}
		}
	}
	return nil
}
