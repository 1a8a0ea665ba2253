package main

// VirtualMachine: the simulator's machine with real files. What the guest and the snapshots use (disks, layers,
// snapshots) is guarded by its io lock, what the API shows by the site's inventory lock. Order: io, then inventory.

import (
	"bytes"
	"fmt"
	"path"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

// VirtualMachine embeds by value: the simulator's property collector panics on a pointer.
type VirtualMachine struct {
	simulator.VirtualMachine
	io        sync.Mutex
	disks     map[int32]*disk
	layers    map[string]*layer // by datastore path
	snapshots []*VirtualMachineSnapshot
	current   *VirtualMachineSnapshot
	lastID    int32
	stall     time.Duration
	writes    int64
	writer    *writer
	seSparse  *bool // nil: as its datastore says
	denyQuiet bool  // snapshots that asked for quiescing report none
	failQuiet bool  // snapshots that ask for quiescing fail
	edition   int64
	home      string // "[datastore1] vm/vm.vmx", fixed for the machine's life
}

type disk struct {
	key         int32
	head        *layer // nil for a raw device mapping
	independent bool
	tracking    *tracking
}

func (v *VirtualMachine) powerState() types.VirtualMachinePowerState { return v.Runtime.PowerState }

func (v *VirtualMachine) dir() string { return filepath.Dir(localPath(v.home)) }

// stem is the name that the machine's files carry.
func (v *VirtualMachine) stem() string {
	base := path.Base(v.home)
	return base[:len(base)-len(path.Ext(base))]
}

func virtualDisks(devices []types.BaseVirtualDevice) []*types.VirtualDisk {
	var out []*types.VirtualDisk
	for _, d := range devices {
		if x, ok := d.(*types.VirtualDisk); ok {
			out = append(out, x)
		}
	}
	return out
}

func flatBacking(d *types.VirtualDisk) *types.VirtualDiskFlatVer2BackingInfo {
	b, _ := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	return b
}

// node is a device's place in the .vmx: "scsi0:1".
func node(devices []types.BaseVirtualDevice, d *types.VirtualDisk) string {
	unit := int32(0)
	if d.UnitNumber != nil {
		unit = *d.UnitNumber
	}
	kind, bus := "scsi", int32(0)
	switch c := object.VirtualDeviceList(devices).FindByKey(d.ControllerKey).(type) {
	case types.BaseVirtualSCSIController:
		bus = c.GetVirtualSCSIController().BusNumber
	case types.BaseVirtualSATAController:
		kind, bus = "sata", c.GetVirtualSATAController().BusNumber
	case *types.VirtualNVMEController:
		kind, bus = "nvme", c.BusNumber
	case *types.VirtualIDEController:
		kind, bus = "ide", c.BusNumber
	}
	return fmt.Sprintf("%s%d:%d", kind, bus, unit)
}

// findVM looks a machine up by its name or its managed object id; the caller holds the inventory lock.
func findVM(name string) (*VirtualMachine, error) {
	var found *VirtualMachine
	for _, e := range simulator.Map.All("VirtualMachine") {
		v, ok := e.(*VirtualMachine)
		if !ok || (v.Name != name && v.Self.Value != name) {
			continue
		}
		if found != nil && v.Name == name {
			return nil, fmt.Errorf("two machines are named %q: give the moid", name)
		}
		found = v
	}
	if found == nil {
		return nil, fmt.Errorf("no machine %q", name)
	}
	return found, nil
}

// diskAt returns the n-th disk in the order of the device list; the caller holds both locks.
func (v *VirtualMachine) diskAt(n int) (*disk, error) {
	all := virtualDisks(v.Config.Hardware.Device)
	if n < 0 || n >= len(all) {
		return nil, fmt.Errorf("%s has no disk %d", v.Name, n)
	}
	d := v.disks[all[n].Key]
	if d == nil || d.head == nil {
		return nil, fmt.Errorf("disk %d of %s has no content of its own", n, v.Name)
	}
	return d, nil
}

// take opens what the device list names and forgets what is no longer there; both locks are held.
func (v *VirtualMachine) take() error {
	present := map[int32]bool{}
	for _, d := range virtualDisks(v.Config.Hardware.Device) {
		present[d.Key] = true
		b := flatBacking(d)
		if v.disks[d.Key] != nil {
			if b != nil {
				v.disks[d.Key].independent = isIndependent(b.DiskMode)
			}
			continue
		}
		x := &disk{key: d.Key}
		v.disks[d.Key] = x
		if b == nil {
			continue
		}
		x.independent = isIndependent(b.DiskMode)
		head, err := openChain(b.FileName)
		if err != nil {
			return err
		}
		x.head = head
		for l := head; l != nil; l = l.parent {
			v.layers[l.dsPath] = l
		}
	}
	for key, d := range v.disks {
		if present[key] {
			continue
		}
		delete(v.disks, key)
		for l := d.head; l != nil && len(v.snapshots) == 0; l = l.parent {
			l.close()
			delete(v.layers, l.dsPath)
		}
	}
	return nil
}

func isIndependent(mode string) bool {
	return mode == "independent_persistent" || mode == "independent_nonpersistent"
}

func isTrue(b *bool) bool { return b != nil && *b }

func (v *VirtualMachine) usesSeSparse(dsPath string) bool {
	if v.seSparse != nil {
		return *v.seSparse
	}
	d := storeOf(dsPath)
	return d != nil && atomic.LoadInt32(&d.seSparse) != 0
}

// nextEdition is a new config.changeVersion.
func (v *VirtualMachine) nextEdition() string {
	v.edition++
	return fmt.Sprintf("%s.%06d", theSite.now().UTC().Format("2006-01-02T15:04:05"), v.edition)
}

var lastRef int64

// newRef names an object of ours.
func newRef(kind, prefix string) types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: kind, Value: fmt.Sprintf("%s-%d", prefix, atomic.AddInt64(&lastRef, 1))}
}

func deepCopy(src, dst interface{}) {
	raw, err := xml.Marshal(src)
	if err == nil {
		dec := xml.NewDecoder(bytes.NewReader(raw))
		dec.TypeFunc = types.TypeFunc()
		err = dec.Decode(dst)
	}
	if err != nil {
		panic(err)
	}
}
