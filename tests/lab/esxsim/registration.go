package main

// Reading a .vmx back into devices.

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/vim25/types"
)

func readVMX(file string) map[string]string {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	out := map[string]string{}
	for _, line := range strings.Split(string(raw), "\n") {
		if k, v, ok := strings.Cut(line, "="); ok {
			v = strings.TrimSpace(v)
			out[strings.TrimSpace(k)] = unescape(strings.TrimSuffix(strings.TrimPrefix(v, `"`), `"`))
		}
	}
	return out
}

// fromVMX sets the machine's configuration; base is "[datastore1] folder".
func (v *VirtualMachine) fromVMX(vmx map[string]string, base string) {
	number := func(key string) int32 { n, _ := strconv.Atoi(vmx[key]); return int32(n) }
	v.Config.Hardware.MemoryMB, v.Config.Hardware.NumCPU = number("memSize"), number("numvcpus")
	v.Summary.Config.MemorySizeMB, v.Summary.Config.NumCpu = number("memSize"), number("numvcpus")
	if u := plainUUID(vmx["uuid.bios"]); u != "" {
		v.Config.Uuid, v.Summary.Config.Uuid = u, u
	}
	if u := plainUUID(vmx["vc.uuid"]); u != "" {
		v.Config.InstanceUuid, v.Summary.Config.InstanceUuid = u, u
	}
	if vmx["firmware"] != "" {
		v.Config.Firmware = vmx["firmware"]
	}
	v.Config.GuestId = vmx["guestOS"] + "Guest"
	v.Summary.Config.GuestId, v.Config.Annotation = v.Config.GuestId, vmx["annotation"]
	v.Config.ChangeTrackingEnabled = types.NewBool(strings.EqualFold(vmx["ctkEnabled"], "TRUE"))
	v.addDisksOf(vmx, base)
}

func (v *VirtualMachine) addDisksOf(vmx map[string]string, base string) {
	b := newDeviceBuilder(v.Config.Hardware.Device)
	for _, kind := range []string{"scsi", "sata", "nvme", "ide"} {
		for number := int32(0); number < 4; number++ {
			for unit := int32(0); unit < buses[kind].units; unit++ {
				n := fmt.Sprintf("%s%d:%d", kind, number, unit)
				name := vmx[n+".fileName"]
				if !strings.HasSuffix(name, ".vmdk") || strings.EqualFold(vmx[n+".present"], "FALSE") {
					continue
				}
				number, unit := number, unit
				spec := &diskSpec{Controller: kind, Bus: &number, Unit: &unit, Mode: strings.ReplaceAll(vmx[n+".mode"], "-", "_")}
				if flavour := vmx[fmt.Sprintf("scsi%d.virtualDev", number)]; kind == "scsi" && flavour != "" {
					spec.Controller = map[string]string{"lsilogic": "lsilogic", "lsisas1068": "lsisas"}[flavour]
				}
				file, bytes := besides(base+"/x", name), int64(0)
				if d, err := readDescriptor(localPath(file)); err == nil {
					bytes = d.Sectors * sectorSize
					spec.Thin = &d.Thin
				}
				b.addDisk(spec, file, bytes)
			}
		}
	}
	v.Config.Hardware.Device = b.list
}
