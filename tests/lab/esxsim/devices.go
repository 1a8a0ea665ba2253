package main

// The devices of a machine that the control API describes: controllers, disks, and what makes a machine hard to
// back up (raw mappings, shared buses, passthrough, vTPM).

import (
	"fmt"
	"strings"

	"github.com/vmware/govmomi/vim25/types"
)

// bus is a kind of controller: its keys as ESX numbers them, and how many units one carries.
type bus struct{ controllerKey, diskKey, units, reserved int32 }

var buses = map[string]bus{
	"scsi": {1000, 2000, 16, 7},
	"sata": {15000, 16000, 30, -1},
	"nvme": {31000, 32000, 64, -1},
	"ide":  {200, 3000, 2, -1},
}

// deviceBuilder places disks on controllers.
type deviceBuilder struct {
	list    []types.BaseVirtualDevice
	next    map[string]int32 // next free unit, counted over all buses of a kind
	present map[int32]bool
	number  int
}

func newDeviceBuilder(list []types.BaseVirtualDevice) *deviceBuilder {
	b := &deviceBuilder{list: list, next: map[string]int32{}, present: map[int32]bool{}}
	for _, d := range list {
		b.present[d.GetVirtualDevice().Key] = true
	}
	return b
}

// place returns controller and unit for a disk, adding the controller if it is new.
func (b *deviceBuilder) place(d *diskSpec) (string, int32, int32, error) {
	kind, flavour := d.Controller, ""
	switch kind {
	case "":
		kind, flavour = "scsi", "pvscsi"
	case "pvscsi", "lsilogic", "lsisas":
		kind, flavour = "scsi", d.Controller
	}
	k, ok := buses[kind]
	if !ok {
		return "", 0, 0, fmt.Errorf("controller %q: scsi, pvscsi, lsilogic, lsisas, sata, nvme or ide", d.Controller)
	}
	n := b.next[kind]
	if n%k.units == k.reserved {
		n++
	}
	number, unit := n/k.units, n%k.units
	if d.Bus != nil {
		number = *d.Bus
	}
	if d.Unit != nil {
		unit = *d.Unit
	}
	b.next[kind] = number*k.units + unit + 1
	key := k.controllerKey + number
	if !b.present[key] {
		b.present[key] = true
		b.list = append(b.list, newController(kind, flavour, key, number, d.BusSharing))
	}
	return kind, number, unit, nil
}

func newController(kind, flavour string, key, number int32, sharing string) types.BaseVirtualDevice {
	c := types.VirtualController{BusNumber: number}
	c.Key, c.ControllerKey = key, 100
	c.DeviceInfo = &types.Description{Label: fmt.Sprintf("%s controller %d", strings.ToUpper(kind), number), Summary: kind}
	switch kind {
	case "sata":
		x := &types.VirtualAHCIController{}
		x.VirtualController = c
		return x
	case "nvme":
		return &types.VirtualNVMEController{VirtualController: c}
	case "ide":
		return &types.VirtualIDEController{VirtualController: c}
	}
	s := types.VirtualSCSIController{VirtualController: c, SharedBus: types.VirtualSCSISharingNoSharing, ScsiCtlrUnitNumber: 7}
	if sharing != "" {
		s.SharedBus = types.VirtualSCSISharing(sharing + "Sharing")
	}
	switch flavour {
	case "lsilogic":
		return &types.VirtualLsiLogicController{VirtualSCSIController: s}
	case "lsisas":
		return &types.VirtualLsiLogicSASController{VirtualSCSIController: s}
	}
	return &types.ParaVirtualSCSIController{VirtualSCSIController: s}
}

// addDisk appends the device of a disk whose descriptor is at dsPath.
func (b *deviceBuilder) addDisk(d *diskSpec, dsPath string, bytes int64) error {
	kind, number, unit, err := b.place(d)
	if err != nil {
		return err
	}
	k := buses[kind]
	b.number++
	x := &types.VirtualDisk{CapacityInKB: bytes / 1024, CapacityInBytes: bytes}
	x.Key, x.ControllerKey, x.UnitNumber = k.diskKey+number*k.units+unit, k.controllerKey+number, &unit
	x.DeviceInfo = &types.Description{Label: fmt.Sprintf("Hard disk %d", b.number), Summary: fmt.Sprintf("%d KB", bytes/1024)}
	x.Backing = d.backing(dsPath)
	b.list = append(b.list, x)
	return nil
}

// backing is the device's backing before any layer is opened.
func (d *diskSpec) backing(dsPath string) types.BaseVirtualDeviceBackingInfo {
	mode := d.Mode
	if mode == "" {
		mode = "persistent"
	}
	file := types.VirtualDeviceFileBackingInfo{FileName: dsPath}
	if s := storeOf(dsPath); s != nil {
		ref := s.ref
		file.Datastore = &ref
	}
	uuid := fmt.Sprintf("6000C29%x-%04x-%04x-%04x-%012x", hash32(dsPath)&15, hash32(dsPath)>>16, hash32(dsPath)&0xffff, hash32(dsPath+"a")&0xffff, hash32(dsPath+"b"))
	if d.RDM != "" {
		lun := "020000000060a98000" + fmt.Sprintf("%08x", hash32(dsPath))
		return &types.VirtualDiskRawDiskMappingVer1BackingInfo{VirtualDeviceFileBackingInfo: file, LunUuid: lun, DeviceName: "vml." + lun,
			CompatibilityMode: d.RDM + "Mode", DiskMode: mode, Uuid: uuid, Sharing: d.Sharing}
	}
	b := &types.VirtualDiskFlatVer2BackingInfo{VirtualDeviceFileBackingInfo: file, DiskMode: mode, Uuid: uuid,
		ThinProvisioned: types.NewBool(d.thin()), WriteThrough: types.NewBool(false), Sharing: d.Sharing}
	if d.Encrypted {
		b.KeyId = &types.CryptoKeyId{KeyId: "disk-key", ProviderId: &types.KeyProviderId{Id: "lab"}}
	}
	return b
}

func (d *diskSpec) thin() bool { return d.Thin == nil || *d.Thin }

// addTroubles appends the devices that a coverage judgement has to see.
func (b *deviceBuilder) addTroubles(passthrough, vtpm bool) {
	if passthrough {
		d := &types.VirtualPCIPassthrough{}
		d.Key, d.ControllerKey = 13000, 100
		d.DeviceInfo = &types.Description{Label: "PCI device 0", Summary: "PCI device 0"}
		d.Backing = &types.VirtualPCIPassthroughDeviceBackingInfo{Id: "0000:03:00.0", DeviceId: "1db6", SystemId: "lab", VendorId: 0x10de}
		b.list = append(b.list, d)
	}
	if vtpm {
		d := &types.VirtualTPM{}
		d.Key, d.ControllerKey = 11000, 100
		d.DeviceInfo = &types.Description{Label: "Virtual TPM", Summary: "Trusted Platform Module"}
		b.list = append(b.list, d)
	}
}
