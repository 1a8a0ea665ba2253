package main

// VM folders: machines that any client creates or registers become ours.

import (
	"context"
	"fmt"
	"math/rand"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Folder wraps a VM folder of the simulator.
type Folder struct{ simulator.Folder }

// CreateFolder makes a folder of our kind.
func (f *Folder) CreateFolder(ctx *simulator.Context, req *types.CreateFolder) soap.HasFault {
	r := f.Folder.CreateFolder(ctx, req)
	if body, ok := r.(*methods.CreateFolderBody); ok && body.Res != nil {
		wrapFolder(body.Res.Returnval)
	}
	return r
}

func wrapFolder(ref types.ManagedObjectReference) {
	if f, ok := simulator.Map.Get(ref).(*simulator.Folder); ok {
		simulator.Map.Put(&Folder{*f})
	}
}

// vmFolder finds or makes "a/b" below the datacenter's VM folder; the inventory lock is held.
func (s *site) vmFolder(where string) (types.ManagedObjectReference, error) {
	ref := s.rootVMFolder
	for _, name := range strings.Split(where, "/") {
		if name == "" {
			continue
		}
		f := simulator.Map.Get(ref).(*Folder)
		if e := simulator.Map.FindByName(name, f.ChildEntity); e != nil {
			ref = e.Reference()
			if _, ok := e.(*Folder); !ok {
				return ref, fmt.Errorf("%q is not a folder", name)
			}
			continue
		}
		r, err := methods.CreateFolder(context.Background(), s.client, &types.CreateFolder{This: ref, Name: name})
		if err != nil {
			return ref, err
		}
		ref = r.Returnval
	}
	return ref, nil
}

func (s *site) hostAndPool(name string) (host, pool types.ManagedObjectReference, err error) {
	for _, e := range simulator.Map.All("HostSystem") {
		h := e.(*simulator.HostSystem)
		if name != "" && h.Name != name || name == "" && host.Value != "" && host.Value < h.Self.Value {
			continue
		}
		host = h.Self
		for _, p := range simulator.Map.All("ResourcePool") {
			if x, ok := p.(*simulator.ResourcePool); ok && x.Owner == *h.Parent {
				pool = x.Self
			}
		}
	}
	if host.Value == "" || pool.Value == "" {
		return host, pool, fmt.Errorf("no host %q", name)
	}
	return host, pool, nil
}

// CreateVMTask creates as the simulator does, then takes the machine over.
func (f *Folder) CreateVMTask(ctx *simulator.Context, req *types.CreateVM_Task) soap.HasFault {
	r := f.Folder.CreateVMTask(ctx, req)
	info := simulator.Map.Get(r.(*methods.CreateVM_TaskBody).Res.Returnval).(*simulator.Task).Info
	if ref, ok := info.Result.(types.ManagedObjectReference); ok {
		v := adopt(simulator.Map.Get(ref).(*simulator.VirtualMachine))
		v.renumber()
		v.touch(".nvram", 8684)
		if v.materialise() == nil {
			v.render()
		}
	}
	return r
}

// adopt replaces the simulator's machine by ours; the inventory lock is held.
func adopt(vm *simulator.VirtualMachine) *VirtualMachine {
	v := &VirtualMachine{VirtualMachine: *vm, disks: map[int32]*disk{}, layers: map[string]*layer{}}
	v.home = v.Config.Files.VmPathName
	v.Summary.Vm = &v.Self
	now := theSite.now()
	v.Config.CreateDate = &now
	v.Runtime.ConsolidationNeeded = types.NewBool(false)
	simulator.Map.Remove(v.Self) // or open container views list it twice
	simulator.Map.Put(v)
	v.log("Log for VMware ESX pid=1000 version=" + theSite.version)
	return v
}

// renumber gives controllers and disks the keys that ESX gives them.
func (v *VirtualMachine) renumber() {
	keys := map[int32]int32{}
	for _, dev := range v.Config.Hardware.Device {
		if c, ok := dev.(types.BaseVirtualSCSIController); ok {
			x := c.GetVirtualSCSIController()
			keys[x.Key] = 1000 + x.BusNumber
			x.Key = keys[x.Key]
		}
	}
	for _, d := range virtualDisks(v.Config.Hardware.Device) {
		if k, ok := keys[d.ControllerKey]; ok && d.UnitNumber != nil {
			d.ControllerKey, d.Key = k, 2000+(k-1000)*16+*d.UnitNumber
		}
	}
}

// materialise gives every disk of the device list that has no files real ones, and opens it.
func (v *VirtualMachine) materialise() error {
	for _, d := range virtualDisks(v.Config.Hardware.Device) {
		b := flatBacking(d)
		if b == nil || v.disks[d.Key] != nil {
			continue
		}
		if _, err := readDescriptor(localPath(b.FileName)); err == nil {
			continue
		}
		if d.CapacityInBytes == 0 {
			d.CapacityInBytes = d.CapacityInKB * 1024
		}
		spec := &diskSpec{Thin: types.NewBool(b.ThinProvisioned == nil || *b.ThinProvisioned)}
		if err := spec.write(b.FileName, d.CapacityInBytes); err != nil {
			return err
		}
	}
	return v.take()
}

// touch writes a small file of fixed content, if there is none.
func (v *VirtualMachine) touch(ext string, size int) {
	file := filepath.Join(v.dir(), v.stem()+ext)
	if st, err := os.Stat(file); err == nil && st.Size() > 0 {
		return
	}
	raw := make([]byte, size)
	rand.New(rand.NewSource(int64(hash32(v.home)))).Read(raw)
	os.WriteFile(file, raw, 0600)
	if stray := filepath.Join(v.dir(), v.Name+ext); stray != file {
		os.Remove(stray) // the simulator names it after the machine
	}
}

// RegisterVMTask builds the machine from its .vmx.
func (f *Folder) RegisterVMTask(ctx *simulator.Context, req *types.RegisterVM_Task) soap.HasFault {
	vmx := readVMX(localPath(req.Path))
	if req.Name == "" {
		req.Name = vmx["displayName"]
	}
	if req.Pool == nil && !req.AsTemplate {
		if _, pool, err := theSite.hostAndPool(""); err == nil {
			req.Pool = &pool
		}
	}
	clean := provideFiles(req, vmx)
	r := f.Folder.RegisterVMTask(ctx, req)
	clean()
	info := simulator.Map.Get(r.(*methods.RegisterVM_TaskBody).Res.Returnval).(*simulator.Task).Info
	if ref, ok := info.Result.(types.ManagedObjectReference); ok {
		v := adopt(simulator.Map.Get(ref).(*simulator.VirtualMachine))
		v.fromVMX(vmx, path.Dir(req.Path))
		v.take()
		v.Summary.Config.NumVirtualDisks = int32(len(v.disks))
		v.refresh()
	}
	return r
}

// provideFiles makes what the simulator wants to see at registration and ESX does not; the result takes it away.
func provideFiles(req *types.RegisterVM_Task, vmx map[string]string) func() {
	var made []string
	for _, name := range []string{req.Name + ".nvram", "vmware.log"} {
		file := filepath.Join(filepath.Dir(localPath(req.Path)), name)
		if _, err := os.Stat(file); err != nil && len(vmx) > 0 {
			os.WriteFile(file, nil, 0600)
			made = append(made, file)
		}
	}
	return func() {
		for _, file := range made {
			os.Remove(file)
		}
	}
}
