package main

// The files of a new disk: descriptor and raw extent, empty, filled, or a sparse copy of an image.

import (
	"fmt"
	"io"
	"math/rand"
	"os"
	"path"
	"path/filepath"
	"strings"
)

type diskSpec struct {
	SizeMB     int64  `json:"size_mb"`
	Image      string `json:"image"`   // a raw image whose bytes become the disk's
	FillMB     int64  `json:"fill_mb"` // random data at the start
	Seed       int64  `json:"seed"`
	Controller string `json:"controller"`
	Bus        *int32 `json:"bus"`
	Unit       *int32 `json:"unit"`
	Datastore  string `json:"datastore"`
	File       string `json:"file"` // default: the machine's name, _1, _2 ...
	Thin       *bool  `json:"thin"`
	Mode       string `json:"mode"`
	RDM        string `json:"rdm"`     // physical, virtual
	Sharing    string `json:"sharing"` // sharingNone, sharingMultiWriter
	BusSharing string `json:"bus_sharing"`
	Encrypted  bool   `json:"encrypted"`
}

// makeDisk writes a disk's files and returns its datastore path and size.
func (spec *vmSpec) makeDisk(i int) (string, int64, error) {
	d := &spec.Disks[i]
	name := d.File
	if name == "" {
		name = spec.Directory + ".vmdk"
		if i > 0 {
			name = fmt.Sprintf("%s_%d.vmdk", spec.Directory, i)
		}
	}
	where := d.Datastore
	if where == "" {
		where = spec.Datastore
	}
	if theSite.stores[where] == nil {
		return "", 0, fmt.Errorf("no datastore %q", where)
	}
	dsPath := fmt.Sprintf("[%s] %s/%s", where, spec.Directory, name)
	if err := os.MkdirAll(filepath.Dir(localPath(dsPath)), 0700); err != nil {
		return "", 0, err
	}
	size, err := d.size()
	if err != nil {
		return "", 0, err
	}
	return dsPath, size, d.write(dsPath, size)
}

// size is the image's length rounded up to a kilobyte, or what was asked for.
func (d *diskSpec) size() (int64, error) {
	size := d.SizeMB << 20
	if d.Image != "" {
		st, err := os.Stat(d.Image)
		if err != nil {
			return 0, err
		}
		if n := (st.Size() + 1023) / 1024 * 1024; n > size {
			size = n
		}
	}
	if size == 0 {
		size = 16 << 20
	}
	return size, nil
}

// write makes descriptor and extent.
func (d *diskSpec) write(dsPath string, size int64) error {
	stem := strings.TrimSuffix(path.Base(dsPath), ".vmdk")
	desc := &descriptor{CID: newCID(), ParentCID: noParent, CreateType: "vmfs", ExtentType: "VMFS", Extent: stem + "-flat.vmdk",
		Adapter: "lsilogic", Thin: d.thin(), Sectors: size / sectorSize}
	if d.RDM != "" {
		desc.CreateType, desc.ExtentType, desc.Extent = "vmfsPassthroughRawDeviceMap", "VMFSRDM", stem+"-rdmp.vmdk"
		if d.RDM == "virtual" {
			desc.CreateType, desc.Extent = "vmfsRawDeviceMap", stem+"-rdm.vmdk"
		}
	}
	extent := filepath.Join(filepath.Dir(localPath(dsPath)), desc.Extent)
	f, err := os.Create(extent)
	if err != nil {
		return err
	}
	defer f.Close()
	if err = f.Truncate(size); err != nil {
		return err
	}
	if !d.thin() {
		storeOf(dsPath).setThick(extent, size)
	}
	if err = d.fill(f, size); err != nil {
		return err
	}
	return desc.write(localPath(dsPath))
}

func (d *diskSpec) fill(f *os.File, size int64) error {
	chunk := make([]byte, 1<<20)
	random := rand.New(rand.NewSource(d.Seed + 1))
	for off := int64(0); off < d.FillMB<<20 && off < size; off += int64(len(chunk)) {
		random.Read(chunk)
		if _, err := f.WriteAt(chunk, off); err != nil {
			return err
		}
	}
	if d.Image == "" {
		return nil
	}
	in, err := os.Open(d.Image)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	return eachDataRange(in, st.Size(), func(from, to int64) error {
		_, err := io.Copy(&offsetWriter{f, from}, io.NewSectionReader(in, from, to-from))
		return err
	})
}

type offsetWriter struct {
	f   *os.File
	off int64
}

func (w *offsetWriter) Write(p []byte) (int, error) {
	n, err := w.f.WriteAt(p, w.off)
	w.off += int64(n)
	return n, err
}
