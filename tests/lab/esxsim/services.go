package main

// Services of the simulator that need correction: performance values that are fed, a browser whose empty pattern means
// everything, an OVF descriptor that lists the disks.

import (
	"fmt"
	"sort"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const hourOfSamples = 180 // 20 s each

// PerformanceManager answers with the values that the control API was given.
type PerformanceManager struct{ simulator.PerformanceManager }

func (p *PerformanceManager) QueryAvailablePerfMetric(_ *simulator.Context, _ *types.QueryAvailablePerfMetric) soap.HasFault {
	body := &methods.QueryAvailablePerfMetricBody{Res: new(types.QueryAvailablePerfMetricResponse)}
	for _, c := range p.PerfCounter {
		body.Res.Returnval = append(body.Res.Returnval, types.PerfMetricId{CounterId: c.Key})
	}
	return body
}

func (p *PerformanceManager) QueryPerf(ctx *simulator.Context, req *types.QueryPerf) soap.HasFault {
	for i := range req.QuerySpec {
		if req.QuerySpec[i].MaxSample == 0 {
			req.QuerySpec[i].MaxSample = hourOfSamples
		}
	}
	res := p.PerformanceManager.QueryPerf(ctx, req)
	body, ok := res.(*methods.QueryPerfBody)
	if !ok || body.Res == nil {
		return res
	}
	names := map[int32]string{}
	for _, c := range p.PerfCounter {
		names[c.Key] = c.GroupInfo.GetElementDescription().Key + "." + c.NameInfo.GetElementDescription().Key + "." + string(c.RollupType)
	}
	for _, e := range body.Res.Returnval {
		if m, ok := e.(*types.PerfEntityMetric); ok {
			theSite.feed(m, names)
		}
	}
	return res
}

// feed puts the given values in; a list is laid over the newest samples, a single value over all.
func (s *site) feed(m *types.PerfEntityMetric, names map[int32]string) {
	entity := m.Entity.Type
	switch o := simulator.Map.Get(m.Entity).(type) {
	case *VirtualMachine:
		entity = o.Name
	case *simulator.HostSystem:
		if s.has(o.Name) {
			entity = o.Name
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, series := range m.Value {
		x := series.(*types.PerfMetricIntSeries)
		given := s.perf[entity][names[x.Id.CounterId]]
		for i := range x.Value {
			switch back := len(x.Value) - 1 - i; {
			case len(given) == 1:
				x.Value[i] = given[0]
			case back < len(given):
				x.Value[i] = given[len(given)-1-back]
			}
		}
	}
	sort.Slice(m.SampleInfo, func(i, j int) bool { return m.SampleInfo[i].Timestamp.Before(m.SampleInfo[j].Timestamp) })
}

func (s *site) has(entity string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.perf[entity] != nil
}

// HostDatastoreBrowser takes an empty pattern for everything, as vSphere does.
type HostDatastoreBrowser struct{ simulator.HostDatastoreBrowser }

func everything(spec *types.HostDatastoreBrowserSearchSpec) *types.HostDatastoreBrowserSearchSpec {
	if spec == nil {
		spec = &types.HostDatastoreBrowserSearchSpec{}
	}
	if len(spec.MatchPattern) == 0 {
		spec.MatchPattern = []string{"*"}
	}
	return spec
}

func (b *HostDatastoreBrowser) SearchDatastoreTask(req *types.SearchDatastore_Task) soap.HasFault {
	req.SearchSpec = everything(req.SearchSpec)
	return b.HostDatastoreBrowser.SearchDatastoreTask(req)
}

func (b *HostDatastoreBrowser) SearchDatastoreSubFoldersTask(req *types.SearchDatastoreSubFolders_Task) soap.HasFault {
	req.SearchSpec = everything(req.SearchSpec)
	return b.HostDatastoreBrowser.SearchDatastoreSubFoldersTask(req)
}

// OvfManager describes what a lease exports.
type OvfManager struct{ simulator.OvfManager }

const ovf = `<?xml version="1.0" encoding="UTF-8"?><Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" ` +
	`xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"><References>%s</References><DiskSection>` +
	`<Info>Virtual disk information</Info>%s</DiskSection><VirtualSystem ovf:id=%q><Name>%s</Name></VirtualSystem></Envelope>`

func (o *OvfManager) CreateDescriptor(_ *simulator.Context, req *types.CreateDescriptor) soap.HasFault {
	v, ok := simulator.Map.Get(req.Obj).(*VirtualMachine)
	if !ok {
		return &methods.CreateDescriptorBody{Fault_: simulator.Fault("", &types.ManagedObjectNotFound{Obj: req.Obj})}
	}
	var files, disks strings.Builder
	for i, f := range req.Cdp.OvfFiles {
		fmt.Fprintf(&files, "<File ovf:href=%q ovf:id=\"file%d\" ovf:size=\"%d\"/>", f.Path, i, f.Size)
	}
	for i, d := range virtualDisks(v.Config.Hardware.Device) {
		fmt.Fprintf(&disks, "<Disk ovf:capacity=\"%d\" ovf:capacityAllocationUnits=\"byte * 2^10\" ovf:diskId=\"vmdisk%d\" ovf:fileRef=\"file%d\" "+
			"ovf:format=\"http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized\"/>", d.CapacityInKB, i, i)
	}
	text := fmt.Sprintf(ovf, files.String(), disks.String(), v.Name, escape(v.Name))
	return &methods.CreateDescriptorBody{Res: &types.CreateDescriptorResponse{Returnval: types.OvfCreateDescriptorResult{OvfDescriptor: text}}}
}

// replaceServices puts our objects in the place of the simulator's.
func (s *site) replaceServices() {
	for _, e := range simulator.Map.All("Folder") {
		if f, ok := e.(*simulator.Folder); ok && f.Name == "vm" {
			s.rootVMFolder = f.Self
			wrapFolder(f.Self)
		}
	}
	content := simulator.Map.Get(vim25.ServiceInstance).(*simulator.ServiceInstance).Content
	pm := simulator.Map.Get(*content.PerfManager).(*simulator.PerformanceManager)
	simulator.Map.Put(&PerformanceManager{*pm})
	simulator.Map.Put(&OvfManager{*simulator.Map.Get(*content.OvfManager).(*simulator.OvfManager)})
	pc := &PropertyCollector{}
	pc.Self = content.PropertyCollector
	simulator.Map.Put(pc)
	var browsers []vim25ref
	for _, e := range simulator.Map.All("Datastore") {
		browsers = append(browsers, e.(*simulator.Datastore).Browser)
	}
	for _, e := range simulator.Map.All("HostSystem") {
		browsers = append(browsers, e.(*simulator.HostSystem).DatastoreBrowser)
	}
	for _, ref := range browsers {
		if b, ok := simulator.Map.Get(ref).(*simulator.HostDatastoreBrowser); ok {
			simulator.Map.Put(&HostDatastoreBrowser{*b})
		}
	}
}

type vim25ref = types.ManagedObjectReference
