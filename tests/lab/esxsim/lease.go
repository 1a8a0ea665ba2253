package main

// Export leases: a machine's or a snapshot's disks as stream-optimised VMDKs.

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// HttpNfcLease ends, unless renewed, when its timeout has passed.
type HttpNfcLease struct {
	mo.HttpNfcLease
	vm    *VirtualMachine
	mu    sync.Mutex
	ends  time.Time
	heads map[string]func() *layer // by file name; called with io held
	sizes map[string]int64
}

// export makes a lease; the inventory lock is held.
func (s *site) export(v *VirtualMachine, config *types.VirtualMachineConfigInfo, head func(key int32) *layer) types.ManagedObjectReference {
	timeout := s.settings.leaseTimeout()
	l := &HttpNfcLease{vm: v, heads: map[string]func() *layer{}, sizes: map[string]int64{}, ends: time.Now().Add(timeout)}
	l.Self = newRef("HttpNfcLease", "lease")
	l.State, l.Mode = types.HttpNfcLeaseStateReady, "pushOrGet"
	l.Info = &types.HttpNfcLeaseInfo{Lease: l.Self, Entity: v.Self, LeaseTimeout: int32(timeout / time.Second)}
	host := s.address
	if simulator.Map.IsESX() {
		host = strings.Replace(host, host[:strings.LastIndex(host, ":")], "*", 1) // as a lone ESX answers
	}
	for i, d := range virtualDisks(config.Hardware.Device) {
		key, name := d.Key, fmt.Sprintf("disk-%d.vmdk", i)
		l.heads[name] = func() *layer { return head(key) }
		l.Info.TotalDiskCapacityInKB += d.CapacityInKB
		l.Info.DeviceUrl = append(l.Info.DeviceUrl, types.HttpNfcLeaseDeviceUrl{Key: fmt.Sprintf("/%s/VirtualDisk%d", v.Self.Value, key),
			ImportKey: fmt.Sprintf("/%s/%s", v.Self.Value, node(config.Hardware.Device, d)), Url: fmt.Sprintf("https://%s/nfc/%s/%s", host, l.Self.Value, name),
			Disk: types.NewBool(true), TargetId: name, SslThumbprint: s.thumbprint})
	}
	simulator.Map.Put(l)
	return l.Self
}

func (s *VirtualMachineSnapshot) ExportSnapshot(_ *simulator.Context, _ *types.ExportSnapshot) soap.HasFault {
	ref := theSite.export(s.vm, &s.Config, func(key int32) *layer { return s.layers[key] })
	return &methods.ExportSnapshotBody{Res: &types.ExportSnapshotResponse{Returnval: ref}}
}

func (v *VirtualMachine) ExportVm(_ *simulator.Context, _ *types.ExportVm) soap.HasFault {
	if v.powerState() != off {
		return &methods.ExportVmBody{Fault_: simulator.Fault("", &types.InvalidPowerState{RequestedState: off, ExistingState: v.powerState()})}
	}
	ref := theSite.export(v, v.Config, func(key int32) *layer {
		if d := v.disks[key]; d != nil {
			return d.head
		}
		return nil
	})
	return &methods.ExportVmBody{Res: &types.ExportVmResponse{Returnval: ref}}
}

func (l *HttpNfcLease) HttpNfcLeaseProgress(_ *simulator.Context, req *types.HttpNfcLeaseProgress) soap.HasFault {
	l.TransferProgress = req.Percent
	l.mu.Lock()
	l.ends = time.Now().Add(theSite.settings.leaseTimeout())
	l.mu.Unlock()
	return &methods.HttpNfcLeaseProgressBody{Res: new(types.HttpNfcLeaseProgressResponse)}
}

func (l *HttpNfcLease) HttpNfcLeaseComplete(_ *simulator.Context, _ *types.HttpNfcLeaseComplete) soap.HasFault {
	l.end(types.HttpNfcLeaseStateDone)
	return &methods.HttpNfcLeaseCompleteBody{Res: new(types.HttpNfcLeaseCompleteResponse)}
}

func (l *HttpNfcLease) HttpNfcLeaseAbort(_ *simulator.Context, _ *types.HttpNfcLeaseAbort) soap.HasFault {
	l.end(types.HttpNfcLeaseStateError)
	return &methods.HttpNfcLeaseAbortBody{Res: new(types.HttpNfcLeaseAbortResponse)}
}

func (l *HttpNfcLease) end(state types.HttpNfcLeaseState) {
	l.State = state
	l.mu.Lock()
	l.ends = time.Time{}
	l.mu.Unlock()
}

func (l *HttpNfcLease) HttpNfcLeaseGetManifest(_ *simulator.Context, _ *types.HttpNfcLeaseGetManifest) soap.HasFault {
	body := &methods.HttpNfcLeaseGetManifestBody{Res: new(types.HttpNfcLeaseGetManifestResponse)}
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, size := range l.sizes {
		body.Res.Returnval = append(body.Res.Returnval, types.HttpNfcLeaseManifestEntry{Key: name, Size: size, Disk: true})
	}
	return body
}

func (l *HttpNfcLease) alive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.ends)
}

func (s *site) serveExport(w http.ResponseWriter, r *http.Request) {
	s.count("GET /nfc")
	parts := strings.Split(r.URL.Path, "/")
	if len(parts) != 4 || r.Method != http.MethodGet {
		http.NotFound(w, r)
		return
	}
	l, ok := simulator.Map.Get(types.ManagedObjectReference{Type: "HttpNfcLease", Value: parts[2]}).(*HttpNfcLease)
	if !ok || !l.alive() || l.heads[parts[3]] == nil {
		http.NotFound(w, r)
		return
	}
	f := s.match("NFC", parts[3], s.namesOf(l.vm.Self)...)
	if f != nil {
		f.sleep()
		if f.Kind == "http" {
			w.WriteHeader(f.Status)
			return
		}
	}
	view := &diskView{l.vm, l.heads[parts[3]]}
	size := view.size()
	if size == 0 {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/x-vnd.vmware-streamVmdk")
	n, err := writeStream(&shaped{w: &leased{w, l}, f: f}, view, size, parts[3])
	if err == nil {
		l.mu.Lock()
		l.sizes[parts[3]] = n
		l.mu.Unlock()
	}
}

// leased ends a download with its lease.
type leased struct {
	w http.ResponseWriter
	l *HttpNfcLease
}

func (t *leased) Write(p []byte) (int, error) {
	if !t.l.alive() {
		panic(http.ErrAbortHandler)
	}
	return t.w.Write(p)
}

func (t *leased) Flush() {
	if fl, ok := t.w.(http.Flusher); ok {
		fl.Flush()
	}
}

// diskView reads a disk piece by piece, so that the guest's writes do not wait for the whole of it.
type diskView struct {
	vm   *VirtualMachine
	head func() *layer
}

func (d *diskView) size() int64 {
	d.vm.io.Lock()
	defer d.vm.io.Unlock()
	if l := d.head(); l != nil {
		return l.size()
	}
	return 0
}

func (d *diskView) ReadAt(p []byte, off int64) (int, error) {
	d.vm.io.Lock()
	defer d.vm.io.Unlock()
	l := d.head()
	if l == nil {
		return 0, fmt.Errorf("the disk is gone")
	}
	return l.ReadAt(p, off)
}
