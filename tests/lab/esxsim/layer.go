package main

// A layer is one link of a disk's chain, kept open: a base with a raw extent, or a delta over its parent.
// Invariant: a layer that has children is never written to but by a merge of its only child.

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	seekData = 3
	seekHole = 4
)

type layer struct {
	dsPath   string // "[datastore1] vm/vm.vmdk"
	file     string // the descriptor's local path
	desc     *descriptor
	parent   *layer
	flat     *os.File
	delta    *cowd
	raw      bool // an RDM: the mapping has no readable content of its own
	freshCID bool // the CID has changed since the layer was opened for writing
}

func (l *layer) size() int64        { return l.desc.Sectors * sectorSize }
func (l *layer) extentFile() string { return filepath.Join(filepath.Dir(l.file), l.desc.Extent) }

// openLayer opens one link; the parent, if any, is open already.
func openLayer(dsPath string, parent *layer) (*layer, error) {
	l := &layer{dsPath: dsPath, file: localPath(dsPath), parent: parent}
	var err error
	if l.desc, err = readDescriptor(l.file); err != nil {
		return nil, err
	}
	if parent != nil {
		l.delta, err = openCowd(l.extentFile())
	} else {
		l.flat, err = os.OpenFile(l.extentFile(), os.O_RDWR, 0)
	}
	return l, err
}

// openChain opens a disk by its head, following the parents' names.
func openChain(dsPath string) (*layer, error) {
	d, err := readDescriptor(localPath(dsPath))
	if err != nil {
		return nil, err
	}
	var parent *layer
	if d.ParentHint != "" {
		if parent, err = openChain(besides(dsPath, d.ParentHint)); err != nil {
			return nil, err
		}
	}
	return openLayer(dsPath, parent)
}

// addDelta makes an empty child.
func (l *layer) addDelta(dsPath string, seSparse bool) (*layer, error) {
	suffix, kind, extent := "-delta.vmdk", "vmfsSparse", "VMFSSPARSE"
	if seSparse {
		suffix, kind, extent = "-sesparse.vmdk", "seSparse", "SESPARSE"
	}
	file := localPath(dsPath)
	stem := strings.TrimSuffix(filepath.Base(file), ".vmdk")
	d := &descriptor{CID: l.desc.CID, ParentCID: l.desc.CID, CreateType: kind, ParentHint: filepath.Base(l.file),
		ExtentType: extent, Extent: stem + suffix, Sectors: l.desc.Sectors}
	if err := createCowd(filepath.Join(filepath.Dir(file), d.Extent), d.Sectors); err != nil {
		return nil, err
	}
	if err := d.write(file); err != nil {
		return nil, err
	}
	return openLayer(dsPath, l)
}

func (l *layer) close() {
	if l.flat != nil {
		l.flat.Close()
	}
	if l.delta != nil {
		l.delta.file.Close()
	}
}

// remove closes the layer and deletes its files.
func (l *layer) remove() {
	l.close()
	os.Remove(l.extentFile())
	os.Remove(l.file)
	os.Remove(changeFile(l.file))
}

// ReadAt reads whole sectors of the disk as it is at this layer.
func (l *layer) ReadAt(p []byte, off int64) (int, error) {
	if l.parent == nil {
		n, err := l.flat.ReadAt(p, off)
		if err == io.EOF {
			for i := range p[n:] {
				p[n+i] = 0
			}
			err = nil
		}
		return len(p), err
	}
	if _, err := l.parent.ReadAt(p, off); err != nil {
		return 0, err
	}
	return len(p), l.delta.readOver(p, off)
}

// write stores whole sectors in this layer and returns by how much its file grew.
func (l *layer) write(p []byte, off int64) (int64, error) {
	if off%sectorSize != 0 || len(p)%sectorSize != 0 || off+int64(len(p)) > l.size() {
		return 0, fmt.Errorf("%s: offset and length must be whole sectors within the disk", l.dsPath)
	}
	if !l.freshCID {
		l.freshCID = true
		l.desc.CID = newCID()
		if err := l.desc.write(l.file); err != nil {
			return 0, err
		}
	}
	if l.parent != nil {
		return l.delta.write(p, off)
	}
	_, err := l.flat.WriteAt(p, off)
	return 0, err
}

// mergeDown folds this delta into its parent; the caller drops this layer afterwards.
func (l *layer) mergeDown() error {
	err := l.delta.each(func(sector, n int64) error {
		buf := make([]byte, n*sectorSize)
		if err := l.delta.readOver(buf, sector*sectorSize); err != nil {
			return err
		}
		_, err := l.parent.write(buf, sector*sectorSize)
		return err
	})
	if err != nil {
		return err
	}
	l.parent.desc.CID, l.parent.freshCID = l.desc.CID, l.freshCID
	return l.parent.desc.write(l.parent.file)
}

// reparent makes the layer a child of another one with the same content below it.
func (l *layer) reparent(p *layer) error {
	l.parent = p
	l.desc.ParentHint = filepath.Base(p.file)
	return l.desc.write(l.file)
}

type byteRange struct{ start, length int64 }

// allocated lists what holds data anywhere in the chain, in whole blocks.
func (l *layer) allocated(block int64) []byteRange {
	used := make([]bool, (l.size()+block-1)/block)
	mark := func(from, to int64) {
		for b := from / block; b*block < to && b < int64(len(used)); b++ {
			used[b] = true
		}
	}
	for x := l; x != nil; x = x.parent {
		if x.delta != nil {
			x.delta.each(func(sector, n int64) error {
				mark(sector*sectorSize, (sector+n)*sectorSize)
				return nil
			})
			continue
		}
		eachDataRange(x.flat, x.size(), func(from, to int64) error { mark(from, to); return nil })
	}
	return ranges(used, block, l.size())
}

// eachDataRange calls fn for what is not a hole of a file.
func eachDataRange(f *os.File, size int64, fn func(from, to int64) error) error {
	for off := int64(0); off < size; {
		from, err := syscall.Seek(int(f.Fd()), off, seekData)
		if err != nil {
			return nil // ENXIO: a hole up to the end
		}
		to, err := syscall.Seek(int(f.Fd()), from, seekHole)
		if err != nil || to > size {
			to = size
		}
		if err = fn(from, to); err != nil {
			return err
		}
		off = to
	}
	return nil
}

func ranges(used []bool, block, size int64) []byteRange {
	var out []byteRange
	for i := 0; i < len(used); i++ {
		if !used[i] {
			continue
		}
		j := i
		for j < len(used) && used[j] {
			j++
		}
		r := byteRange{int64(i) * block, int64(j-i) * block}
		if r.start+r.length > size {
			r.length = size - r.start
		}
		out, i = append(out, r), j
	}
	return out
}

// changeFile is the change-tracking file of a descriptor.
func changeFile(file string) string { return strings.TrimSuffix(file, ".vmdk") + "-ctk.vmdk" }
