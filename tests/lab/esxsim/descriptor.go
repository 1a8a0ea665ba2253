package main

// A virtual disk's descriptor: the small text file that names the extent, its size and its parent.

import (
	"fmt"
	"math/rand"
	"os"
	"regexp"
	"strconv"
	"strings"
)

const sectorSize = 512

// noParent is the parentCID of a base disk.
const noParent = "ffffffff"

type descriptor struct {
	CID        string
	ParentCID  string
	CreateType string // vmfs, vmfsSparse, seSparse, vmfsRawDeviceMap, vmfsPassthroughRawDeviceMap
	ParentHint string // file name, or an absolute path when the parent lies elsewhere
	Extent     string // file name beside the descriptor
	ExtentType string // VMFS, VMFSSPARSE, SESPARSE, VMFSRDM
	ChangeFile string
	Adapter    string
	Thin       bool
	Sectors    int64
}

func newCID() string {
	return fmt.Sprintf("%08x", rand.Uint32()&0x7ffffffe|0x10000000)
}

// write replaces the descriptor file.
func (d *descriptor) write(file string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=%s\nparentCID=%s\ncreateType=\"%s\"\n", d.CID, d.ParentCID, d.CreateType)
	if d.ParentHint != "" {
		fmt.Fprintf(&b, "parentFileNameHint=\"%s\"\n", d.ParentHint)
	}
	fmt.Fprintf(&b, "# Extent description\nRW %d %s \"%s\"\n\n", d.Sectors, d.ExtentType, d.Extent)
	if d.ChangeFile != "" {
		fmt.Fprintf(&b, "# Change Tracking File\nchangeTrackPath=\"%s\"\n\n", d.ChangeFile)
	}
	b.WriteString("# The Disk Data Base\n#DDB\n\n")
	if d.ParentHint == "" {
		fmt.Fprintf(&b, "ddb.adapterType = \"%s\"\n", d.Adapter)
		fmt.Fprintf(&b, "ddb.geometry.cylinders = \"%d\"\nddb.geometry.heads = \"255\"\nddb.geometry.sectors = \"63\"\n", d.Sectors/(255*63))
		if d.Thin {
			b.WriteString("ddb.thinProvisioned = \"1\"\n")
		}
		b.WriteString("ddb.virtualHWVersion = \"13\"\n")
	}
	return os.WriteFile(file, []byte(b.String()), 0600)
}

var extentLine = regexp.MustCompile(`(?m)^RW (\d+) (\S+) "([^"]+)"`)

// readDescriptor parses the fields that the simulator needs.
func readDescriptor(file string) (*descriptor, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	extent := extentLine.FindSubmatch(raw)
	if extent == nil {
		return nil, fmt.Errorf("%s: no extent line", file)
	}
	fields := map[string]string{}
	for _, line := range strings.Split(string(raw), "\n") {
		if k, v, ok := strings.Cut(line, "="); ok {
			fields[strings.TrimSpace(k)] = strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	d := &descriptor{
		CID: fields["CID"], ParentCID: fields["parentCID"], CreateType: fields["createType"],
		ParentHint: fields["parentFileNameHint"], ChangeFile: fields["changeTrackPath"],
		Adapter: fields["ddb.adapterType"], Thin: fields["ddb.thinProvisioned"] == "1",
		ExtentType: string(extent[2]), Extent: string(extent[3]),
	}
	d.Sectors, err = strconv.ParseInt(string(extent[1]), 10, 64)
	return d, err
}
