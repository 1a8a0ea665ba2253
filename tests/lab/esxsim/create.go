package main

// Creating a machine as the control API describes it: files first, without any lock, then the inventory.

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/simulator/esx"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

type vmSpec struct {
	Name          string     `json:"name"`
	Folder        string     `json:"folder"` // "a/b" below the datacenter's VM folder, made if missing (vCenter)
	Host          string     `json:"host"`
	Datastore     string     `json:"datastore"`
	Directory     string     `json:"directory"`
	Power         string     `json:"power"`
	MemoryMB      int64      `json:"memory_mb"`
	CPUs          int32      `json:"cpus"`
	GuestID       string     `json:"guest_id"`
	Firmware      string     `json:"firmware"`
	InstanceUUID  string     `json:"instance_uuid"`
	BiosUUID      string     `json:"bios_uuid"`
	Annotation    string     `json:"annotation"`
	Tools         *bool      `json:"tools"`
	SeSparse      *bool      `json:"sesparse"`
	CBT           bool       `json:"cbt"`
	Template      bool       `json:"template"`
	Passthrough   bool       `json:"passthrough"`
	VTPM          bool       `json:"vtpm"`
	EncryptionKey string     `json:"encryption_key"`
	Disks         []diskSpec `json:"disks"`
}

// unsafe is what vSphere keeps out of folder names: characters that paths cannot hold, and the escapes for them.
var unsafe = regexp.MustCompile(`%2f|%5c|%25|[/\\:*?"<>|]`)

func (spec *vmSpec) complete() error {
	if spec.Name == "" {
		return fmt.Errorf("a machine needs a name")
	}
	if spec.Datastore == "" {
		spec.Datastore = theSite.firstStore
	}
	if theSite.stores[spec.Datastore] == nil {
		return fmt.Errorf("no datastore %q", spec.Datastore)
	}
	if spec.Directory == "" {
		spec.Directory = unsafe.ReplaceAllString(spec.Name, "_")
		if _, err := os.Stat(filepath.Join(theSite.stores[spec.Datastore].root, spec.Directory)); err == nil {
			spec.Directory += "_1"
		}
	}
	if spec.Power == "" {
		spec.Power = "on"
	}
	if spec.GuestID == "" {
		spec.GuestID = "debian11_64Guest"
	}
	if spec.MemoryMB == 0 {
		spec.MemoryMB = 64
	}
	if spec.CPUs == 0 {
		spec.CPUs = 1
	}
	if spec.InstanceUUID == "" {
		spec.InstanceUUID = uuid.New().String() // the simulator's would be that of any machine with this path
	}
	if spec.BiosUUID == "" {
		spec.BiosUUID = uuid.New().String()
	}
	return nil
}

// home is the datastore path of the .vmx.
func (spec *vmSpec) home() string {
	return fmt.Sprintf("[%s] %s/%s.vmx", spec.Datastore, spec.Directory, spec.Directory)
}

// create makes the files and the machine; no lock is held.
func (s *site) create(spec *vmSpec) (*VirtualMachine, error) {
	if err := spec.complete(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(localPath(spec.home())), 0700); err != nil {
		return nil, err
	}
	paths, sizes := make([]string, len(spec.Disks)), make([]int64, len(spec.Disks))
	for i := range spec.Disks {
		var err error
		if paths[i], sizes[i], err = spec.makeDisk(i); err != nil {
			return nil, err
		}
	}
	s.inventory.Lock()
	defer s.inventory.Unlock()
	folder, err := s.vmFolder(spec.Folder)
	if err != nil {
		return nil, err
	}
	v, err := s.enrol(folder, spec)
	if err != nil {
		return nil, err
	}
	b := newDeviceBuilder(v.Config.Hardware.Device)
	for i := range spec.Disks {
		if err = b.addDisk(&spec.Disks[i], paths[i], sizes[i]); err != nil {
			return nil, err
		}
	}
	b.addTroubles(spec.Passthrough, spec.VTPM)
	v.Config.Hardware.Device = b.list
	return v, v.finish(spec)
}

// enrol has the simulator make the machine without disks.
func (s *site) enrol(folder types.ManagedObjectReference, spec *vmSpec) (*VirtualMachine, error) {
	host, pool, err := s.hostAndPool(spec.Host)
	if err != nil {
		return nil, err
	}
	nic := esx.EthernetCard
	nic.Backing = &types.VirtualEthernetCardNetworkBackingInfo{VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: "VM Network"}}
	config := types.VirtualMachineConfigSpec{Name: spec.Name, GuestId: spec.GuestID, NumCPUs: spec.CPUs, MemoryMB: spec.MemoryMB,
		Firmware: spec.Firmware, InstanceUuid: spec.InstanceUUID, Uuid: spec.BiosUUID, Annotation: spec.Annotation,
		Files: &types.VirtualMachineFileInfo{VmPathName: spec.home()}}
	config.DeviceChange, _ = object.VirtualDeviceList{&nic}.ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd)
	r, err := methods.CreateVM_Task(context.Background(), s.client, &types.CreateVM_Task{This: folder, Config: config, Pool: pool, Host: &host})
	if err != nil {
		return nil, err
	}
	info := simulator.Map.Get(r.Returnval).(*simulator.Task).Info
	if info.Error != nil {
		return nil, fmt.Errorf("%s: %T", spec.Name, info.Error.Fault)
	}
	return simulator.Map.Get(info.Result.(types.ManagedObjectReference)).(*VirtualMachine), nil
}

// finish sets what only the control API can say; the inventory lock is held and nobody else knows the machine yet.
func (v *VirtualMachine) finish(spec *vmSpec) error {
	v.seSparse = spec.SeSparse
	v.Config.ChangeTrackingEnabled = types.NewBool(spec.CBT)
	if spec.EncryptionKey != "" {
		v.Config.KeyId = &types.CryptoKeyId{KeyId: spec.EncryptionKey, ProviderId: &types.KeyProviderId{Id: "lab"}}
	}
	v.setTools(spec.Tools == nil || *spec.Tools)
	if err := v.take(); err != nil {
		return err
	}
	switch spec.Power {
	case "on":
		v.startTracking()
		v.setPower(on)
	case "suspended":
		v.setPower(on)
		v.setPower(suspended)
	case "off":
	default:
		return fmt.Errorf("power %q: on, off or suspended", spec.Power)
	}
	v.Config.Template, v.Summary.Config.Template = spec.Template, spec.Template
	v.render()
	return nil
}

func (v *VirtualMachine) setTools(running bool) {
	v.Guest.ToolsRunningStatus, v.Guest.ToolsStatus = toolsStopped, types.VirtualMachineToolsStatusToolsNotRunning
	if running {
		v.Guest.ToolsRunningStatus, v.Guest.ToolsStatus = toolsRunning, types.VirtualMachineToolsStatusToolsOk
	}
	v.Summary.Guest.ToolsStatus, v.Summary.Guest.ToolsRunningStatus = v.Guest.ToolsStatus, v.Guest.ToolsRunningStatus
}
