package main

// Control verbs about what is on the disks: the guest's writes, and reading as the guest or a snapshot sees it.

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"time"
)

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// guestWrite writes to the live head, as the guest does; it measures how long it had to wait.
func (v *VirtualMachine) guestWrite(d *disk, off int64, p []byte) error {
	began := time.Now()
	v.io.Lock()
	defer v.io.Unlock()
	if waited := time.Since(began); waited > v.stall {
		v.stall = waited
	}
	ds := storeOf(d.head.dsPath)
	if ds.free() == 0 {
		return fmt.Errorf("no space left on datastore %s", ds.name)
	}
	grown, err := d.head.write(p, off)
	if err != nil {
		return err
	}
	ds.grow(grown)
	d.tracking.mark(off, int64(len(p)))
	v.writes++
	return nil
}

func (s *site) diskOf(name string, n int) (*VirtualMachine, *disk, error) {
	v, err := s.lockedVM(name)
	if err != nil {
		return nil, nil, err
	}
	var d *disk
	err = v.both(func() error {
		d, err = v.diskAt(n)
		return err
	})
	return v, d, err
}

func writeDisk(s *site, raw json.RawMessage) (interface{}, error) {
	var q struct {
		VM     string
		Disk   int
		Offset int64
		Data   []byte // base64 in JSON
		Length int64  // with seed: random bytes instead of data
		Seed   *int64
	}
	if err := decode(raw, &q); err != nil {
		return nil, err
	}
	v, d, err := s.diskOf(q.VM, q.Disk)
	if err != nil {
		return nil, err
	}
	if q.Seed != nil {
		q.Data = make([]byte, q.Length)
		rand.New(rand.NewSource(*q.Seed)).Read(q.Data)
	}
	return map[string]int{"written": len(q.Data)}, v.guestWrite(d, q.Offset, q.Data)
}

// view is a disk as of now, or as of a snapshot by name or managed object id.
func (s *site) view(name string, n int, snapshot string) (*diskView, error) {
	v, d, err := s.diskOf(name, n)
	if err != nil {
		return nil, err
	}
	if snapshot == "" {
		return &diskView{v, func() *layer { return d.head }}, nil
	}
	v.io.Lock()
	defer v.io.Unlock()
	x, err := v.snapshotBy(snapshot)
	if err != nil {
		return nil, err
	}
	if x.layers[d.key] == nil {
		return nil, fmt.Errorf("snapshot %s does not cover disk %d", snapshot, n)
	}
	return &diskView{v, func() *layer { return x.layers[d.key] }}, nil
}

// snapshotBy finds by name or moid; the io lock is held.
func (v *VirtualMachine) snapshotBy(name string) (*VirtualMachineSnapshot, error) {
	for _, s := range v.snapshots {
		if s.name == name || s.Self.Value == name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%s has no snapshot %q", v.home, name)
}

func readDisk(s *site, raw json.RawMessage) (interface{}, error) {
	var q struct {
		VM             string
		Disk           int
		Offset, Length int64
		Snapshot       string
	}
	if err := decode(raw, &q); err != nil {
		return nil, err
	}
	view, err := s.view(q.VM, q.Disk, q.Snapshot)
	if err != nil {
		return nil, err
	}
	if q.Offset < 0 || q.Length < 0 || q.Offset+q.Length > view.size() || q.Offset%sectorSize != 0 || q.Length%sectorSize != 0 {
		return nil, fmt.Errorf("offset and length must be whole sectors within the disk")
	}
	p := make([]byte, q.Length)
	_, err = view.ReadAt(p, q.Offset)
	return map[string][]byte{"data": p}, err
}

func hashDisk(s *site, raw json.RawMessage) (interface{}, error) {
	var q struct {
		VM       string
		Disk     int
		Snapshot string
	}
	if err := decode(raw, &q); err != nil {
		return nil, err
	}
	view, err := s.view(q.VM, q.Disk, q.Snapshot)
	if err != nil {
		return nil, err
	}
	h, size := sha256.New(), view.size()
	if _, err = io.CopyBuffer(h, struct{ io.Reader }{io.NewSectionReader(view, 0, size)}, make([]byte, 1<<20)); err != nil {
		return nil, err
	}
	return map[string]interface{}{"sha256": fmt.Sprintf("%x", h.Sum(nil)), "size": size}, nil
}
