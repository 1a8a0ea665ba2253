package main

// Control verbs about what is on the disks: the guest's writes, and reading as the guest or a snapshot sees it.

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"time"

	"github.com/vmware/govmomi/vim25/types"
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

// writer is a guest that keeps writing.
type writer struct {
	stop chan struct{}
	done chan struct{}
	n    int64
	took time.Duration
	err  error
}

func startWriter(s *site, raw json.RawMessage) (interface{}, error) {
	q := struct {
		VM    string
		Disk  int
		Rate  float64 // writes a second; 0: as fast as it goes
		Block int
		Seed  int64
	}{Block: 4096, Rate: 1000}
	if err := decode(raw, &q); err != nil {
		return nil, err
	}
	v, d, err := s.diskOf(q.VM, q.Disk)
	if err != nil {
		return nil, err
	}
	v.stopWriter()
	w := &writer{stop: make(chan struct{}), done: make(chan struct{})}
	v.io.Lock()
	v.writer, v.stall = w, 0
	v.io.Unlock()
	go w.run(v, d, q.Rate, q.Block, rand.New(rand.NewSource(q.Seed)))
	return nil, nil
}

func (w *writer) run(v *VirtualMachine, d *disk, rate float64, block int, random *rand.Rand) {
	defer close(w.done)
	began := time.Now()
	v.io.Lock()
	blocks := d.head.size() / int64(block)
	v.io.Unlock()
	p := make([]byte, block)
	for {
		select {
		case <-w.stop:
			w.took = time.Since(began)
			return
		default:
		}
		if ahead := time.Duration(float64(w.n)/rate*1e9) - time.Since(began); rate > 0 && ahead > time.Millisecond {
			time.Sleep(ahead)
		}
		random.Read(p)
		if w.err = v.guestWrite(d, random.Int63n(blocks)*int64(block), p); w.err != nil {
			w.took = time.Since(began)
			return
		}
		w.n++
	}
}

// stopWriter ends the machine's writer and returns it, nil if there is none.
func (v *VirtualMachine) stopWriter() *writer {
	v.io.Lock()
	w := v.writer
	v.writer = nil
	v.io.Unlock()
	if w != nil {
		close(w.stop)
		<-w.done
	}
	return w
}

func stopWriter(s *site, raw json.RawMessage) (interface{}, error) {
	var q struct{ VM string }
	if err := decode(raw, &q); err != nil {
		return nil, err
	}
	v, err := s.lockedVM(q.VM)
	if err != nil {
		return nil, err
	}
	w := v.stopWriter()
	if w == nil {
		return nil, fmt.Errorf("%s has no writer", q.VM)
	}
	v.io.Lock()
	defer v.io.Unlock()
	message := ""
	if w.err != nil {
		message = w.err.Error()
	}
	return map[string]interface{}{"writes": w.n, "seconds": w.took.Seconds(), "max_stall_ms": ms(v.stall), "error": message}, nil
}

func longestStall(s *site, raw json.RawMessage) (interface{}, error) {
	var q struct {
		VM    string
		Reset bool
	}
	if err := decode(raw, &q); err != nil {
		return nil, err
	}
	v, err := s.lockedVM(q.VM)
	if err != nil {
		return nil, err
	}
	v.io.Lock()
	defer v.io.Unlock()
	out := map[string]float64{"max_stall_ms": ms(v.stall)}
	if q.Reset {
		v.stall = 0
	}
	return out, nil
}

type snapshotQuery struct {
	VM             string
	Name           string
	Description    string
	Memory         bool
	Quiesce        bool
	RemoveChildren bool `json:"remove_children"`
}

// snapshotWork runs a snapshot operation as its task would.
func (s *site) snapshotWork(raw json.RawMessage, fn func(*VirtualMachine, *snapshotQuery) (types.AnyType, types.BaseMethodFault, error)) (interface{}, error) {
	q := &snapshotQuery{}
	if err := decode(raw, q); err != nil {
		return nil, err
	}
	v, err := s.lockedVM(q.VM)
	if err != nil {
		return nil, err
	}
	res, fault, err := fn(v, q)
	if fault != nil {
		err = fmt.Errorf("%s", typeName(fault))
	}
	if ref, ok := res.(types.ManagedObjectReference); ok {
		return map[string]string{"moid": ref.Value}, err
	}
	return nil, err
}

func createSnapshot(s *site, raw json.RawMessage) (interface{}, error) {
	return s.snapshotWork(raw, func(v *VirtualMachine, q *snapshotQuery) (types.AnyType, types.BaseMethodFault, error) {
		res, fault := v.snapshot(snapshotRequest{q.Name, q.Description, q.Memory, q.Quiesce})
		return res, fault, nil
	})
}

func removeSnapshot(s *site, raw json.RawMessage) (interface{}, error) {
	return s.snapshotWork(raw, func(v *VirtualMachine, q *snapshotQuery) (types.AnyType, types.BaseMethodFault, error) {
		x, err := v.lockedSnapshot(q.Name)
		if err != nil {
			return nil, nil, err
		}
		res, fault := v.remove(v.subtree(x, q.RemoveChildren), false)
		return res, fault, nil
	})
}

func revertSnapshot(s *site, raw json.RawMessage) (interface{}, error) {
	return s.snapshotWork(raw, func(v *VirtualMachine, q *snapshotQuery) (types.AnyType, types.BaseMethodFault, error) {
		x, err := v.lockedSnapshot(q.Name)
		if err != nil {
			return nil, nil, err
		}
		res, fault := v.revert(x)
		return res, fault, nil
	})
}

func (v *VirtualMachine) lockedSnapshot(name string) (*VirtualMachineSnapshot, error) {
	v.io.Lock()
	defer v.io.Unlock()
	return v.snapshotBy(name)
}
