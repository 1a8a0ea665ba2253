package main

// The stream-optimised VMDK that an export lease yields: compressed grains of 64 KiB in rising order, each grain
// table after its grains, the directory and a footer at the end.

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"
)

const (
	grainSectors     = 128
	grainTableLength = 512
	descriptorPlace  = 20 // sectors reserved for the embedded descriptor
	markerEOS        = 0
	markerTable      = 1
	markerDirectory  = 2
	markerFooter     = 3
	directoryAtEnd   = 0xffffffffffffffff
)

type streamWriter struct {
	out io.Writer
	n   int64
	err error
}

func (w *streamWriter) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.out.Write(p)
	w.n, w.err = w.n+int64(n), err
	return n, err
}

func (w *streamWriter) put(parts ...[]byte) {
	for _, p := range parts {
		w.Write(p)
	}
}

func (w *streamWriter) pad() {
	if n := w.n % sectorSize; n != 0 {
		w.put(make([]byte, sectorSize-n))
	}
}

// writeStream writes size bytes of r as a stream-optimised VMDK and returns the stream's length.
func writeStream(out io.Writer, r io.ReaderAt, size int64, name string) (int64, error) {
	w := &streamWriter{out: out}
	sectors := size / sectorSize
	grains := (sectors + grainSectors - 1) / grainSectors
	directory := make([]uint32, (grains+grainTableLength-1)/grainTableLength)
	text := make([]byte, descriptorPlace*sectorSize)
	copy(text, embeddedDescriptor(sectors, name))
	w.put(streamHeader(sectors, directoryAtEnd), text, make([]byte, (grainSectors-descriptorPlace-1)*sectorSize))
	for t := range directory {
		table, err := w.grains(r, size, int64(t)*grainTableLength, grains)
		if err != nil {
			return w.n, err
		}
		if table != nil {
			w.put(marker(grainTableLength*4/sectorSize, markerTable))
			directory[t] = uint32(w.n / sectorSize)
			binary.Write(w, binary.LittleEndian, table)
		}
	}
	w.put(marker(uint64((len(directory)*4+sectorSize-1)/sectorSize), markerDirectory))
	at := uint64(w.n / sectorSize)
	binary.Write(w, binary.LittleEndian, directory)
	w.pad()
	w.put(marker(1, markerFooter), streamHeader(sectors, at), marker(0, markerEOS))
	return w.n, w.err
}

// grains writes one table's grains and returns the table, nil if all of them are zeros.
func (w *streamWriter) grains(r io.ReaderAt, size, first, total int64) ([]uint32, error) {
	var table []uint32
	buf, zero := make([]byte, grainSectors*sectorSize), make([]byte, grainSectors*sectorSize)
	for j := int64(0); j < grainTableLength && first+j < total && w.err == nil; j++ {
		off := (first + j) * grainSectors * sectorSize
		p := buf
		if off+int64(len(p)) > size {
			p = buf[:size-off]
		}
		if _, err := r.ReadAt(p, off); err != nil {
			return nil, err
		}
		if bytes.Equal(p, zero[:len(p)]) {
			continue
		}
		if table == nil {
			table = make([]uint32, grainTableLength)
		}
		table[j] = uint32(w.n / sectorSize)
		w.grain(p, off)
	}
	return table, w.err
}

func (w *streamWriter) grain(p []byte, off int64) {
	var z bytes.Buffer
	zw, _ := zlib.NewWriterLevel(&z, zlib.BestSpeed)
	zw.Write(p)
	zw.Close()
	var h [12]byte
	binary.LittleEndian.PutUint64(h[:], uint64(off/sectorSize))
	binary.LittleEndian.PutUint32(h[8:], uint32(z.Len()))
	w.put(h[:], z.Bytes())
	w.pad()
}

func streamHeader(sectors int64, directory uint64) []byte {
	var b bytes.Buffer
	b.WriteString("KDMV")
	for _, v := range []interface{}{uint32(3), uint32(0x30001), uint64(sectors), uint64(grainSectors), uint64(1), uint64(descriptorPlace),
		uint32(grainTableLength), uint64(0), directory, uint64(grainSectors)} {
		binary.Write(&b, binary.LittleEndian, v)
	}
	b.WriteByte(0) // clean shutdown
	b.WriteString("\n \r\n")
	binary.Write(&b, binary.LittleEndian, uint16(1)) // deflate
	b.Write(make([]byte, sectorSize-b.Len()))
	return b.Bytes()
}

func embeddedDescriptor(sectors int64, name string) string {
	return fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=%s\nparentCID=%s\ncreateType=\"streamOptimized\"\n\n# Extent description\n"+
		"RDONLY %d SPARSE \"%s\"\n\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\nddb.geometry.cylinders = \"%d\"\n"+
		"ddb.geometry.heads = \"255\"\nddb.geometry.sectors = \"63\"\nddb.virtualHWVersion = \"13\"\n", newCID(), noParent, sectors, name, sectors/(255*63))
}

func marker(sectors uint64, kind uint32) []byte {
	b := make([]byte, sectorSize)
	binary.LittleEndian.PutUint64(b, sectors)
	binary.LittleEndian.PutUint32(b[12:], kind)
	return b
}
