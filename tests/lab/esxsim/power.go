package main

// Power, reconfiguration and the end of a machine.

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	on           = types.VirtualMachinePowerStatePoweredOn
	off          = types.VirtualMachinePowerStatePoweredOff
	suspended    = types.VirtualMachinePowerStateSuspended
	toolsRunning = string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)
	toolsStopped = string(types.VirtualMachineToolsRunningStatusGuestToolsNotRunning)
)

func (v *VirtualMachine) swapFile() string { return v.stem() + "-" + v.Self.Value + ".vswp" }

func makeSparse(file string, size int64) {
	if f, err := os.Create(file); err == nil {
		f.Truncate(size)
		f.Close()
	}
}

// setPower changes state, times and the files that go with it; both locks are held.
func (v *VirtualMachine) setPower(state types.VirtualMachinePowerState) {
	was := v.powerState()
	swap, suspend := filepath.Join(v.dir(), v.swapFile()), filepath.Join(v.dir(), v.stem()+".vmss")
	os.Remove(suspend)
	if state == on {
		now := theSite.now()
		if was == off {
			v.Runtime.BootTime = &now
		}
		makeSparse(swap, int64(v.Config.Hardware.MemoryMB)<<20)
		makeSparse(filepath.Join(v.dir(), "vmx-"+v.swapFile()), 64<<20)
		v.log("PowerOn")
	} else {
		os.Remove(swap)
		os.Remove(filepath.Join(v.dir(), "vmx-"+v.swapFile()))
		if state == off {
			v.Runtime.BootTime = nil
		} else {
			makeSparse(suspend, int64(v.Config.Hardware.MemoryMB)<<20)
		}
		v.log("PowerOff")
	}
	v.Runtime.PowerState = state
	v.Summary.Runtime = v.Runtime
}

func (v *VirtualMachine) log(text string) {
	f, err := os.OpenFile(filepath.Join(v.dir(), "vmware.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0600)
	if err == nil {
		fmt.Fprintf(f, "%s| vmx| I005: %s\n", theSite.now().UTC().Format(time.RFC3339), text)
		f.Close()
	}
}

// power is the work of a power task.
func (v *VirtualMachine) power(to types.VirtualMachinePowerState, from ...types.VirtualMachinePowerState) work {
	return func() (types.AnyType, types.BaseMethodFault) {
		v.io.Lock()
		defer v.io.Unlock()
		theSite.inventory.Lock()
		defer theSite.inventory.Unlock()
		for _, f := range from {
			if v.powerState() == f && !v.Config.Template {
				if to == on && f == off {
					v.startTracking()
				}
				v.setPower(to)
				v.render()
				return nil, nil
			}
		}
		return nil, &types.InvalidPowerState{RequestedState: to, ExistingState: v.powerState()}
	}
}

func (v *VirtualMachine) PowerOnVMTask(_ *simulator.Context, _ *types.PowerOnVM_Task) soap.HasFault {
	return &methods.PowerOnVM_TaskBody{Res: &types.PowerOnVM_TaskResponse{Returnval: theSite.task(v, "powerOnVM", v.power(on, off, suspended))}}
}

func (v *VirtualMachine) PowerOffVMTask(_ *simulator.Context, _ *types.PowerOffVM_Task) soap.HasFault {
	return &methods.PowerOffVM_TaskBody{Res: &types.PowerOffVM_TaskResponse{Returnval: theSite.task(v, "powerOffVM", v.power(off, on, suspended))}}
}

func (v *VirtualMachine) SuspendVMTask(_ *simulator.Context, _ *types.SuspendVM_Task) soap.HasFault {
	return &methods.SuspendVM_TaskBody{Res: &types.SuspendVM_TaskResponse{Returnval: theSite.task(v, "suspendVM", v.power(suspended, on))}}
}

func (v *VirtualMachine) ShutdownGuest(_ *simulator.Context, _ *types.ShutdownGuest) soap.HasFault {
	go v.power(off, on)()
	return &methods.ShutdownGuestBody{Res: new(types.ShutdownGuestResponse)}
}

// ReconfigVMTask lets the simulator change the device list, then makes real what it says.
func (v *VirtualMachine) ReconfigVMTask(ctx *simulator.Context, req *types.ReconfigVM_Task) soap.HasFault {
	ref := theSite.task(v, "reconfigVM", func() (types.AnyType, types.BaseMethodFault) {
		v.io.Lock()
		defer v.io.Unlock()
		theSite.inventory.Lock()
		defer theSite.inventory.Unlock()
		r := v.VirtualMachine.ReconfigVMTask(ctx, req).(*methods.ReconfigVM_TaskBody)
		info := simulator.Map.Get(r.Res.Returnval).(*simulator.Task).Info
		if info.Error != nil {
			return nil, info.Error.Fault
		}
		if err := v.materialise(); err != nil {
			return nil, &types.FileFault{File: err.Error()}
		}
		if v.powerState() == off {
			v.startTracking()
		}
		v.render()
		return nil, nil
	})
	return &methods.ReconfigVM_TaskBody{Res: &types.ReconfigVM_TaskResponse{Returnval: ref}}
}

// UnregisterVM takes the machine out of the inventory; its files stay.
func (v *VirtualMachine) UnregisterVM(ctx *simulator.Context, req *types.UnregisterVM) soap.HasFault {
	r := v.VirtualMachine.UnregisterVM(ctx, req)
	if r.Fault() == nil {
		v.forgetSnapshots()
	}
	return r
}

func (v *VirtualMachine) forgetSnapshots() {
	if v.Snapshot == nil {
		return
	}
	var walk func([]types.VirtualMachineSnapshotTree)
	walk = func(tree []types.VirtualMachineSnapshotTree) {
		for _, t := range tree {
			simulator.Map.Remove(t.Snapshot)
			walk(t.ChildSnapshotList)
		}
	}
	walk(v.Snapshot.RootSnapshotList)
}

// DestroyTask removes the machine and all of its files.
func (v *VirtualMachine) DestroyTask(ctx *simulator.Context, req *types.Destroy_Task) soap.HasFault {
	ref := theSite.task(v, "destroy", func() (types.AnyType, types.BaseMethodFault) {
		v.stopWriter()
		v.io.Lock()
		defer v.io.Unlock()
		theSite.inventory.Lock()
		defer theSite.inventory.Unlock()
		if r := v.UnregisterVM(ctx, &types.UnregisterVM{This: v.Self}); r.Fault() != nil {
			return nil, r.Fault().VimFault().(types.BaseMethodFault)
		}
		for _, l := range v.layers {
			l.remove()
			os.Remove(filepath.Dir(l.file)) // its folder on another datastore, when empty
		}
		os.RemoveAll(v.dir())
		v.measure()
		return nil, nil
	})
	return &methods.Destroy_TaskBody{Res: &types.Destroy_TaskResponse{Returnval: ref}}
}
