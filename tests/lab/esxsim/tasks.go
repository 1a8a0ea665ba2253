package main

// Tasks run in the background, as on a real host. A fault that was injected for the method is carried out here.

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

type work func() (types.AnyType, types.BaseMethodFault)

// taskRepair is a registry handler that makes the simulator's own tasks acceptable to pyVmomi: an entity must be a
// ManagedEntity and the name must be that of the wire.
type taskRepair struct{ mo.Folder }

func (taskRepair) Reference() types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "TaskRepair", Value: "taskRepair"}
}
func (taskRepair) UpdateObject(mo.Reference, []types.PropertyChange) {}
func (taskRepair) RemoveObject(types.ManagedObjectReference)         {}
func (taskRepair) PutObject(o mo.Reference) {
	t, ok := o.(*simulator.Task)
	if !ok {
		return
	}
	if _, known := types.TypeFunc()(t.Info.Name + "_Task"); known {
		t.Info.Name += "_Task"
	}
	if t.Info.Entity == nil {
		return
	}
	switch t.Info.Entity.Type {
	case "VirtualMachine", "HostSystem", "Datastore", "Folder", "Datacenter", "ResourcePool", "ComputeResource", "ClusterComputeResource", "Network":
	default:
		t.Info.Entity = nil
	}
}

// task starts fn in the background. The caller holds the inventory lock; fn does not.
func (s *site) task(e mo.Reference, name string, fn work) types.ManagedObjectReference {
	t := simulator.CreateTask(e, name+"Task", nil)
	f, delay := s.injected, s.settings.taskDelay()
	s.injected = nil
	if vm, ok := simulator.Map.Get(e.Reference()).(*VirtualMachine); ok {
		t.Info.EntityName = vm.Name
	}
	t.Info.QueueTime = s.now()
	go s.runTask(t, f, delay, fn)
	return t.Self
}

func (s *site) runTask(t *simulator.Task, f *fault, delay time.Duration, fn work) {
	s.update(t, change("info.startTime", s.now()), change("info.state", types.TaskInfoStateRunning), change("info.progress", int32(0)))
	s.slow(t, delay)
	var res types.AnyType
	var failure types.BaseMethodFault
	message := ""
	if f != nil && f.Kind == "hang" {
		f.wait()
		f = nil
	}
	if f == nil || f.Kind != "task" {
		res, failure = fn()
	}
	if f != nil {
		res, failure, message = nil, faultByName(f.Fault), f.Message
	}
	state, wrapped := types.TaskInfoStateSuccess, interface{}(nil)
	if failure != nil {
		if message == "" {
			message = strings.TrimPrefix(fmt.Sprintf("%T", failure), "*types.")
		}
		state, wrapped = types.TaskInfoStateError, types.LocalizedMethodFault{Fault: failure, LocalizedMessage: message}
	}
	s.update(t, change("info.completeTime", s.now()), change("info.result", res), change("info.error", wrapped),
		change("info.progress", int32(100)), change("info.state", state))
}

// slow spreads a delay over steps of visible progress.
func (s *site) slow(t *simulator.Task, delay time.Duration) {
	const steps = 10
	for i := 1; i < steps && delay > 0; i++ {
		time.Sleep(delay / steps)
		s.update(t, change("info.progress", int32(i*100/steps)))
	}
	time.Sleep(delay / steps)
}

func change(name string, val types.AnyType) types.PropertyChange {
	return types.PropertyChange{Name: name, Val: val}
}

// update publishes property changes; the caller must not hold the inventory lock.
func (s *site) update(o mo.Reference, changes ...types.PropertyChange) {
	s.inventory.Lock()
	defer s.inventory.Unlock()
	simulator.Map.Update(o, changes)
}

// faultByName makes the vSphere fault of that type name; SystemError for a name that is none.
func faultByName(name string) types.BaseMethodFault {
	if t, ok := types.TypeFunc()(name); ok {
		if f, ok := reflect.New(t).Interface().(types.BaseMethodFault); ok {
			return f
		}
	}
	return &types.SystemError{}
}
