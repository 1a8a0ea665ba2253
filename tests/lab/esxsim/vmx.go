package main

// The .vmx and .vmsd files, as ESX writes them. Both locks are held.

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"
)

type dictionary struct{ strings.Builder }

// set writes one line; quotes and control characters are escaped as |XX.
func (b *dictionary) set(key string, val interface{}) {
	var text strings.Builder
	for _, r := range fmt.Sprint(val) {
		if r < 32 || r == '"' || r == '|' {
			fmt.Fprintf(&text, "|%02X", r)
		} else {
			text.WriteRune(r)
		}
	}
	fmt.Fprintf(b, "%s = \"%s\"\n", key, text.String())
}

func unescape(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		var c byte
		if s[i] == '|' && i+2 < len(s) {
			if _, err := fmt.Sscanf(s[i+1:i+3], "%02X", &c); err == nil {
				out.WriteByte(c)
				i += 2
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

func (v *VirtualMachine) writeVMX() {
	c := v.Config
	b := &dictionary{}
	b.set(".encoding", "UTF-8")
	b.set("config.version", 8)
	b.set("virtualHW.version", strings.TrimPrefix(c.Version, "vmx-"))
	b.set("nvram", v.stem()+".nvram")
	b.set("displayName", v.Name)
	b.set("guestOS", strings.TrimSuffix(c.GuestId, "Guest"))
	b.set("memSize", c.Hardware.MemoryMB)
	b.set("numvcpus", c.Hardware.NumCPU)
	b.set("uuid.bios", spacedUUID(c.Uuid))
	b.set("vc.uuid", spacedUUID(c.InstanceUuid))
	b.set("firmware", c.Firmware)
	if c.Annotation != "" {
		b.set("annotation", c.Annotation)
	}
	if isTrue(c.ChangeTrackingEnabled) {
		b.set("ctkEnabled", "TRUE")
	}
	v.writeDevices(b)
	for _, o := range c.ExtraConfig {
		if x := o.GetOptionValue(); x.Key != "govcsim" {
			b.set(x.Key, x.Value)
		}
	}
	os.WriteFile(localPath(v.home), []byte(b.String()), 0700)
}

func (v *VirtualMachine) writeDevices(b *dictionary) {
	devices := object.VirtualDeviceList(v.Config.Hardware.Device)
	nics := 0
	for _, dev := range devices {
		switch d := dev.(type) {
		case *types.VirtualDisk:
			n := node(devices, d)
			file := d.Backing.(types.BaseVirtualDeviceFileBackingInfo).GetVirtualDeviceFileBackingInfo().FileName
			b.set(n+".present", "TRUE")
			b.set(n+".deviceType", n[:strings.IndexAny(n, "0123456789")]+"-hardDisk")
			b.set(n+".fileName", asSeenFrom(v.home, file))
			if x := flatBacking(d); x != nil && isIndependent(x.DiskMode) {
				b.set(n+".mode", strings.ReplaceAll(x.DiskMode, "_", "-"))
			}
			if x := v.disks[d.Key]; x != nil && x.tracking != nil {
				b.set(n+".ctkEnabled", "TRUE")
			}
		case types.BaseVirtualEthernetCard:
			n := fmt.Sprintf("ethernet%d", nics)
			nics++
			b.set(n+".present", "TRUE")
			b.set(n+".virtualDev", "e1000")
			b.set(n+".networkName", "VM Network")
			b.set(n+".addressType", "generated")
			b.set(n+".generatedAddress", d.GetVirtualEthernetCard().MacAddress)
		case *types.VirtualTPM:
			b.set("vtpm.present", "TRUE")
		case *types.VirtualPCIPassthrough:
			b.set("pciPassthru0.present", "TRUE")
		default:
			writeController(b, dev)
		}
	}
}

func writeController(b *dictionary, dev types.BaseVirtualDevice) {
	switch d := dev.(type) {
	case types.BaseVirtualSCSIController:
		c := d.GetVirtualSCSIController()
		n := fmt.Sprintf("scsi%d", c.BusNumber)
		kind := map[string]string{"ParaVirtualSCSIController": "pvscsi", "VirtualLsiLogicSASController": "lsisas1068"}[typeName(dev)]
		if kind == "" {
			kind = "lsilogic"
		}
		b.set(n+".present", "TRUE")
		b.set(n+".virtualDev", kind)
		if c.SharedBus != types.VirtualSCSISharingNoSharing {
			b.set(n+".sharedBus", strings.TrimSuffix(string(c.SharedBus), "Sharing"))
		}
	case *types.VirtualAHCIController:
		b.set(fmt.Sprintf("sata%d.present", d.BusNumber), "TRUE")
	case *types.VirtualNVMEController:
		b.set(fmt.Sprintf("nvme%d.present", d.BusNumber), "TRUE")
	}
}

func typeName(x interface{}) string {
	name := fmt.Sprintf("%T", x)
	return name[strings.LastIndex(name, ".")+1:]
}

// spacedUUID is a UUID in the form of a .vmx: "56 4d ... -.. ..".
func spacedUUID(uuid string) string {
	hex := strings.ReplaceAll(uuid, "-", "")
	if len(hex) != 32 {
		return uuid
	}
	var parts []string
	for i := 0; i < 32; i += 2 {
		parts = append(parts, hex[i:i+2])
	}
	return strings.Join(parts[:8], " ") + "-" + strings.Join(parts[8:], " ")
}

func plainUUID(spaced string) string {
	hex := strings.NewReplacer(" ", "", "-", "").Replace(spaced)
	if len(hex) != 32 {
		return ""
	}
	return strings.Join([]string{hex[:8], hex[8:12], hex[12:16], hex[16:20], hex[20:]}, "-")
}

func (v *VirtualMachine) writeVMSD() {
	b := &dictionary{}
	b.set(".encoding", "UTF-8")
	if len(v.snapshots) > 0 {
		b.set("snapshot.lastUID", v.lastID)
	}
	if v.current != nil {
		b.set("snapshot.current", v.current.id)
	}
	for i, s := range v.snapshots {
		s.write(b, fmt.Sprintf("snapshot%d.", i))
	}
	b.set("snapshot.numSnapshots", len(v.snapshots))
	os.WriteFile(filepath.Join(v.dir(), v.stem()+".vmsd"), []byte(b.String()), 0600)
}

func (s *VirtualMachineSnapshot) write(b *dictionary, prefix string) {
	us := s.created.UnixMicro()
	b.set(prefix+"uid", s.id)
	if s.parent != nil {
		b.set(prefix+"parent", s.parent.id)
	}
	b.set(prefix+"filename", s.dataFile)
	b.set(prefix+"displayName", s.name)
	b.set(prefix+"description", s.description)
	b.set(prefix+"createTimeHigh", us>>32)
	b.set(prefix+"createTimeLow", int32(us))
	n := 0
	disks := virtualDisks(s.Config.Hardware.Device)
	sort.Slice(disks, func(i, j int) bool { return disks[i].Key < disks[j].Key })
	for _, d := range disks {
		if l := s.layers[d.Key]; l != nil {
			b.set(fmt.Sprintf("%sdisk%d.fileName", prefix, n), path.Base(asSeenFrom(s.vm.home, l.dsPath)))
			b.set(fmt.Sprintf("%sdisk%d.node", prefix, n), node(s.Config.Hardware.Device, d))
			n++
		}
	}
	b.set(prefix+"numDisks", n)
}
