package main

// layoutEx and the storage summary, from the files that belong to the machine.

import (
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

type layoutBuilder struct {
	ex        *types.VirtualMachineFileLayoutEx
	old       *types.VirtualMachineFileLayout
	keys      map[string]int32
	committed int64
}

// add lists a file, if it is there, and returns its key.
func (b *layoutBuilder) add(dsPath, kind string) int32 {
	if key, ok := b.keys[dsPath]; ok {
		return key
	}
	st, err := os.Stat(localPath(dsPath))
	if err != nil {
		return -1
	}
	size, used := st.Size(), storeOf(dsPath).usage(localPath(dsPath), st)
	if kind == "diskExtent" { // layoutEx breaks up the committed space (vim.vm.StorageInfo.UsageOnDatastore): not the length
		size = used
	}
	key := int32(len(b.keys))
	b.keys[dsPath], b.committed = key, b.committed+used
	b.ex.File = append(b.ex.File, types.VirtualMachineFileLayoutExFileInfo{Key: key, Name: dsPath, Type: kind, Size: size,
		UniqueSize: used, Accessible: types.NewBool(true)})
	switch kind {
	case "nvram", "snapshotList":
		b.old.ConfigFile = append(b.old.ConfigFile, path.Base(dsPath))
	case "log":
		b.old.LogFile = append(b.old.LogFile, path.Base(dsPath))
	case "swap":
		b.old.SwapFile = dsPath
	}
	return key
}

// disk lists a chain, base first.
func (b *layoutBuilder) disk(key int32, head *layer) (types.VirtualMachineFileLayoutExDiskLayout, types.VirtualMachineFileLayoutDiskLayout) {
	ex, old := types.VirtualMachineFileLayoutExDiskLayout{Key: key}, types.VirtualMachineFileLayoutDiskLayout{Key: key}
	for l := head; l != nil; l = l.parent {
		unit := types.VirtualMachineFileLayoutExDiskUnit{FileKey: []int32{b.add(l.dsPath, "diskDescriptor"),
			b.add(path.Dir(l.dsPath)+"/"+l.desc.Extent, "diskExtent")}}
		b.add(strings.TrimSuffix(l.dsPath, ".vmdk")+"-ctk.vmdk", "diskExtent")
		ex.Chain = append([]types.VirtualMachineFileLayoutExDiskUnit{unit}, ex.Chain...)
		old.DiskFile = append([]string{l.dsPath}, old.DiskFile...)
	}
	return ex, old
}

// disks lists the chains of a device list, in its order.
func (b *layoutBuilder) disks(devices []types.BaseVirtualDevice, head func(int32) *layer) (ex []types.VirtualMachineFileLayoutExDiskLayout, old []types.VirtualMachineFileLayoutDiskLayout) {
	for _, d := range virtualDisks(devices) {
		l := head(d.Key)
		if l == nil {
			if file, ok := d.Backing.(types.BaseVirtualDeviceFileBackingInfo); ok {
				b.add(file.GetVirtualDeviceFileBackingInfo().FileName, "diskDescriptor")
			}
			continue
		}
		x, o := b.disk(d.Key, l)
		ex, old = append(ex, x), append(old, o)
	}
	return ex, old
}

func (b *layoutBuilder) own(v *VirtualMachine) {
	base, stem := path.Dir(v.home), v.stem()
	for _, f := range []struct{ name, kind string }{{stem + ".vmx", "config"}, {stem + ".vmxf", "extendedConfig"}, {stem + ".nvram", "nvram"},
		{stem + ".vmsd", "snapshotList"}, {v.swapFile(), "swap"}, {"vmx-" + v.swapFile(), "uwswap"}, {stem + ".vmss", "suspend"}} {
		b.add(base+"/"+f.name, f.kind)
	}
	logs, _ := filepath.Glob(filepath.Join(globEscape(v.dir()), "vmware*.log"))
	sort.Strings(logs)
	for _, l := range logs {
		b.add(base+"/"+filepath.Base(l), "log")
	}
}

func globEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// refresh recomputes layout, layoutEx and the storage summary; both locks are held.
func (v *VirtualMachine) refresh() {
	b := &layoutBuilder{ex: &types.VirtualMachineFileLayoutEx{Timestamp: time.Now()}, old: &types.VirtualMachineFileLayout{}, keys: map[string]int32{}}
	b.own(v)
	b.ex.Disk, b.old.Disk = b.disks(v.Config.Hardware.Device, func(key int32) *layer {
		if d := v.disks[key]; d != nil {
			return d.head
		}
		return nil
	})
	for _, s := range v.snapshots {
		s := s
		data, memory := b.add(path.Dir(v.home)+"/"+s.dataFile, "snapshotData"), int32(-1)
		if s.memoryFile != "" {
			memory = b.add(path.Dir(v.home)+"/"+s.memoryFile, "snapshotMemory")
		}
		chains, _ := b.disks(s.Config.Hardware.Device, func(key int32) *layer { return s.layers[key] })
		b.ex.Snapshot = append(b.ex.Snapshot, types.VirtualMachineFileLayoutExSnapshotLayout{Key: s.Self, DataKey: data, MemoryKey: memory, Disk: chains})
		b.old.Snapshot = append(b.old.Snapshot, types.VirtualMachineFileLayoutSnapshotLayout{Key: s.Self, SnapshotFile: []string{s.dataFile}})
	}
	var provisioned int64
	for _, d := range v.disks {
		if d.head != nil {
			provisioned += d.head.size()
		}
	}
	sum := &types.VirtualMachineStorageSummary{Committed: b.committed, Uncommitted: provisioned, Unshared: b.committed, Timestamp: time.Now()}
	simulator.Map.Update(v, []types.PropertyChange{change("layoutEx", b.ex), change("layout", b.old), change("summary.storage", sum)})
}

// RefreshStorageInfo measures the files again.
func (v *VirtualMachine) RefreshStorageInfo(*simulator.Context, *types.RefreshStorageInfo) soap.HasFault {
	go func() { // a handler must not wait for io while it holds the inventory
		v.io.Lock()
		defer v.io.Unlock()
		theSite.inventory.Lock()
		defer theSite.inventory.Unlock()
		v.refresh()
	}()
	return &methods.RefreshStorageInfoBody{Res: new(types.RefreshStorageInfoResponse)}
}
