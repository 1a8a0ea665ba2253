package main

// The vmfsSparse ("COWD") extent that ESX writes for a snapshot's delta: a header, a grain directory, grain
// tables of 4096 entries, and grains of one sector. All numbers are little-endian sectors.

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
)

const (
	tableEntries   = 4096
	tableSectors   = tableEntries * 4 / sectorSize
	headerSectors  = 4
	freeSectorAt   = 4 + 6*4 // header offset of the next free sector
	cowdHeaderSize = 44
)

type cowd struct {
	file   *os.File
	dir    []uint32
	tables map[int][]uint32
	next   uint32
}

func createCowd(name string, sectors int64) error {
	entries := uint32((sectors + tableEntries - 1) / tableEntries)
	dirSectors := (entries*4 + sectorSize - 1) / sectorSize
	var b bytes.Buffer
	b.WriteString("COWD")
	for _, v := range []uint32{1, 3, uint32(sectors), 1, headerSectors, entries, headerSectors + dirSectors, 0, 0, 0} {
		b.Write(le32(v))
	}
	b.Write(make([]byte, int(headerSectors+dirSectors)*sectorSize-b.Len()))
	return os.WriteFile(name, b.Bytes(), 0600)
}

func openCowd(name string) (*cowd, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	c := &cowd{file: f, tables: map[int][]uint32{}}
	if err = c.load(); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

func (c *cowd) load() error {
	h := make([]byte, cowdHeaderSize)
	if _, err := c.file.ReadAt(h, 0); err != nil || string(h[:4]) != "COWD" {
		return fmt.Errorf("not a COWD extent")
	}
	field := func(i int) uint32 { return binary.LittleEndian.Uint32(h[4+4*i:]) }
	c.next = field(6)
	var err error
	if c.dir, err = c.words(field(4), int(field(5))); err != nil {
		return err
	}
	for i, at := range c.dir {
		if at == 0 {
			continue
		}
		if c.tables[i], err = c.words(at, tableEntries); err != nil {
			return err
		}
	}
	return nil
}

func (c *cowd) words(at uint32, n int) ([]uint32, error) {
	raw := make([]byte, n*4)
	if _, err := c.file.ReadAt(raw, int64(at)*sectorSize); err != nil {
		return nil, err
	}
	out := make([]uint32, n)
	for i := range out {
		out[i] = binary.LittleEndian.Uint32(raw[4*i:])
	}
	return out, nil
}

// run returns where the sector lies in the file (0: nowhere) and how many sectors follow in the same way.
func (c *cowd) run(sector, limit int64) (uint32, int64) {
	table := c.tables[int(sector/tableEntries)]
	i := sector % tableEntries
	if left := tableEntries - i; limit > left {
		limit = left
	}
	if table == nil {
		return 0, limit
	}
	n := int64(1)
	for n < limit && ((table[i] == 0 && table[i+n] == 0) || (table[i] != 0 && table[i+n] == table[i]+uint32(n))) {
		n++
	}
	return table[i], n
}

// readOver lays the delta's sectors over p, which holds what lies below.
func (c *cowd) readOver(p []byte, off int64) error {
	for len(p) > 0 {
		at, n := c.run(off/sectorSize, int64(len(p)/sectorSize))
		if at != 0 {
			if _, err := c.file.ReadAt(p[:n*sectorSize], int64(at)*sectorSize); err != nil {
				return err
			}
		}
		p, off = p[n*sectorSize:], off+n*sectorSize
	}
	return nil
}

// write stores whole sectors and returns by how many bytes the file grew.
func (c *cowd) write(p []byte, off int64) (int64, error) {
	before := c.next
	for len(p) > 0 {
		sector := off / sectorSize
		at, n := c.run(sector, int64(len(p)/sectorSize))
		if at == 0 {
			var err error
			if at, err = c.allocate(sector, n); err != nil {
				return 0, err
			}
		}
		if _, err := c.file.WriteAt(p[:n*sectorSize], int64(at)*sectorSize); err != nil {
			return 0, err
		}
		p, off = p[n*sectorSize:], off+n*sectorSize
	}
	return int64(c.next-before) * sectorSize, nil
}

// allocate gives n unallocated sectors of one table consecutive places at the file's end.
func (c *cowd) allocate(sector, n int64) (uint32, error) {
	t := int(sector / tableEntries)
	if c.tables[t] == nil {
		if _, err := c.file.WriteAt(make([]byte, tableSectors*sectorSize), int64(c.next)*sectorSize); err != nil {
			return 0, err
		}
		c.tables[t], c.dir[t] = make([]uint32, tableEntries), c.next
		c.next += tableSectors
		if _, err := c.file.WriteAt(le32(c.dir[t]), headerSectors*sectorSize+int64(t)*4); err != nil {
			return 0, err
		}
	}
	at, i := c.next, sector%tableEntries
	raw := make([]byte, 0, n*4)
	for k := int64(0); k < n; k++ {
		c.tables[t][i+k] = at + uint32(k)
		raw = append(raw, le32(at+uint32(k))...)
	}
	if _, err := c.file.WriteAt(raw, int64(c.dir[t])*sectorSize+i*4); err != nil {
		return 0, err
	}
	c.next += uint32(n)
	_, err := c.file.WriteAt(le32(c.next), freeSectorAt)
	return at, err
}

// each calls fn for every run of sectors that the delta holds.
func (c *cowd) each(fn func(sector, n int64) error) error {
	for t, table := range c.tables {
		for i := int64(0); i < tableEntries; {
			at, n := c.run(int64(t)*tableEntries+i, tableEntries)
			if at != 0 && table != nil {
				if err := fn(int64(t)*tableEntries+i, n); err != nil {
					return err
				}
			}
			i += n
		}
	}
	return nil
}

func le32(v uint32) []byte {
	b := make([]byte, 4)
	binary.LittleEndian.PutUint32(b, v)
	return b
}
