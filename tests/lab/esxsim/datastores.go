package main

// Datastores: a folder each, with a capacity of its own; free space moves with the files.

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// reserve is what a datastore needs free for a snapshot to be allowed.
const reserve = 16 << 20

type store struct {
	name     string
	root     string
	uuid     string
	capacity int64 // bytes; atomic
	used     int64 // bytes; atomic
	seSparse int32 // atomic: snapshots on it are SEsparse
	mu       sync.Mutex
	thick    map[string]int64 // flat files that own their whole size
	folders  map[string]int64 // what each top folder takes
	ref      types.ManagedObjectReference
}

func (d *store) free() int64 {
	if n := atomic.LoadInt64(&d.capacity) - atomic.LoadInt64(&d.used); n > 0 {
		return n
	}
	return 0
}

func (d *store) grow(n int64) { atomic.AddInt64(&d.used, n) }

func (d *store) setThick(file string, size int64) {
	d.mu.Lock()
	d.thick[file] = size
	d.mu.Unlock()
}

// usage is the space that one file takes.
func (d *store) usage(file string, st os.FileInfo) int64 {
	d.mu.Lock()
	size, ok := d.thick[file]
	d.mu.Unlock()
	if ok {
		return size
	}
	return st.Sys().(*syscall.Stat_t).Blocks * 512
}

// recount measures the whole datastore.
func (d *store) recount() {
	entries, _ := os.ReadDir(d.root)
	fresh := map[string]int64{}
	for _, e := range entries {
		fresh[e.Name()] = d.measure(e.Name())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.folders = fresh
	d.sum()
}

// recountFolder measures the top folder that a file lies in.
func (d *store) recountFolder(file string) {
	name, _, _ := strings.Cut(strings.TrimPrefix(file, d.root+"/"), "/")
	n := d.measure(name)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.folders[name] = n
	d.sum()
}

func (d *store) sum() {
	var n int64
	for _, used := range d.folders {
		n += used
	}
	atomic.StoreInt64(&d.used, n)
}

func (d *store) measure(name string) (n int64) {
	filepath.Walk(filepath.Join(d.root, name), func(p string, st os.FileInfo, err error) error {
		if err == nil && !st.IsDir() {
			n += d.usage(p, st)
		}
		return nil
	})
	return n
}

// addDatastore mounts a folder on every host.
func (s *site) addDatastore(ctx context.Context, name string, capacityMB int64) error {
	root, err := filepath.Abs(filepath.Join(s.state, name))
	if err != nil {
		return err
	}
	if err = os.MkdirAll(root, 0700); err != nil {
		return err
	}
	d := &store{name: name, root: root, capacity: capacityMB << 20, thick: map[string]int64{}, folders: map[string]int64{}}
	d.uuid = fmt.Sprintf("5f%06x-%08x-%04x-0050569c%04x", len(name)*7919, hash32(name), hash32(name)>>16, hash32(name)&0xffff)
	var mounts []types.DatastoreHostMount
	for _, e := range simulator.Map.All("HostSystem") {
		system, err := object.NewHostSystem(s.client, e.Reference()).ConfigManager().DatastoreSystem(ctx)
		if err != nil {
			return err
		}
		ds, err := system.CreateLocalDatastore(ctx, name, root)
		if err != nil {
			return err
		}
		d.ref = ds.Reference()
		x := simulator.Map.Get(d.ref).(*simulator.Datastore)
		mounts = append(mounts, x.Host...)
		x.Host = mounts
		x.Summary.Type, x.Summary.Url = "VMFS", "ds:///vmfs/volumes/"+d.uuid+"/"
		x.Summary.MultipleHostAccess = types.NewBool(len(mounts) > 1)
	}
	s.stores[name] = d
	s.publishSpace()
	return nil
}

// publishSpace puts the measured space into the inventory; the caller holds the inventory lock.
func (s *site) publishSpace() {
	for _, d := range s.stores {
		x := simulator.Map.Get(d.ref).(*simulator.Datastore)
		free := d.free()
		if x.Summary.FreeSpace == free && x.Summary.Capacity == atomic.LoadInt64(&d.capacity) {
			continue
		}
		x.Info.GetDatastoreInfo().FreeSpace = free
		simulator.Map.Update(x, []types.PropertyChange{change("summary.capacity", atomic.LoadInt64(&d.capacity)), change("summary.freeSpace", free)})
	}
}

// refreshSpace measures everything; no lock is held.
func (s *site) refreshSpace() {
	for _, d := range s.stores {
		d.recount()
	}
	s.locked(s.publishSpace)
}

func storeOf(dsPath string) *store {
	var p object.DatastorePath
	p.FromString(dsPath)
	return theSite.stores[p.Datastore]
}

// localPath turns "[datastore1] a/b" into a path on this machine.
func localPath(dsPath string) string {
	var p object.DatastorePath
	p.FromString(dsPath)
	if d := theSite.stores[p.Datastore]; d != nil {
		return filepath.Join(d.root, filepath.Clean("/"+p.Path))
	}
	return "/nonexistent"
}

// datastorePath is the reverse of localPath.
func datastorePath(file string) string {
	for _, d := range theSite.stores {
		if strings.HasPrefix(file, d.root+"/") {
			return "[" + d.name + "] " + strings.TrimPrefix(file, d.root+"/")
		}
	}
	return ""
}

// besides names a file as seen from another: beside it, or by an absolute path of ESX.
func besides(dsPath, name string) string {
	if !strings.HasPrefix(name, "/vmfs/volumes/") {
		return path.Dir(dsPath) + "/" + name
	}
	volume, rest, _ := strings.Cut(strings.TrimPrefix(name, "/vmfs/volumes/"), "/")
	for _, d := range theSite.stores {
		if volume == d.name || volume == d.uuid {
			return "[" + d.name + "] " + rest
		}
	}
	return "[" + volume + "] " + rest
}

// asSeenFrom writes a file's name as ESX does in a .vmx: plain beside it, absolute elsewhere.
func asSeenFrom(dsPath, file string) string {
	if path.Dir(dsPath) == path.Dir(file) {
		return path.Base(file)
	}
	var p object.DatastorePath
	p.FromString(file)
	if d := theSite.stores[p.Datastore]; d != nil {
		return "/vmfs/volumes/" + d.uuid + "/" + p.Path
	}
	return file
}
