package main

// What the front answers in the simulator's place: calls without a login, and searches through our folders, which the
// simulator's search index does not know.

import (
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// anonymous says what vSphere answers without a login.
func anonymous(m *simulator.Method) bool {
	switch m.Body.(type) {
	case *types.RetrieveServiceContent, *types.CurrentTime:
		return true
	}
	return asks(m, "ServiceInstance")
}

// asks says whether a call only reads properties of objects of the type.
func asks(m *simulator.Method, kind string) bool {
	var specs []types.PropertyFilterSpec
	switch body := m.Body.(type) {
	case *types.RetrievePropertiesEx:
		specs = body.SpecSet
	case *types.RetrieveProperties:
		specs = body.SpecSet
	default:
		return m.Name == "Fetch" && m.This.Type == kind
	}
	for _, spec := range specs {
		for _, o := range spec.ObjectSet {
			if o.Obj.Type != kind {
				return false
			}
		}
	}
	return true
}

// noSession is the answer to a read of the session manager's properties: the object without any.
func noSession(m *simulator.Method) string {
	object := `<obj type="SessionManager">SessionManager</obj>`
	switch m.Name {
	case "RetrievePropertiesEx":
		return "<returnval><objects>" + object + "</objects></returnval>"
	case "RetrieveProperties":
		return "<returnval>" + object + "</returnval>"
	}
	return ""
}

// found answers searches by inventory path or child name that pass through our folders.
func (s *site) found(m *simulator.Method) (string, bool) {
	s.inventory.Lock()
	defer s.inventory.Unlock()
	var ref *types.ManagedObjectReference
	switch body := m.Body.(type) {
	case *types.FindByInventoryPath:
		root := simulator.Map.Get(vim25.ServiceInstance).(*simulator.ServiceInstance).Content.RootFolder
		ref = &root
		for _, name := range strings.FieldsFunc(body.InventoryPath, func(c rune) bool { return c == '/' }) {
			if ref = childOf(*ref, name); ref == nil {
				break
			}
		}
	case *types.FindChild:
		if _, ok := simulator.Map.Get(body.Entity).(*Folder); !ok {
			return "", false
		}
		ref = childOf(body.Entity, body.Name)
	default:
		return "", false
	}
	if ref == nil {
		return "", true
	}
	return `<returnval type="` + ref.Type + `">` + escape(ref.Value) + `</returnval>`, true
}

func childOf(parent types.ManagedObjectReference, name string) *types.ManagedObjectReference {
	var children []types.ManagedObjectReference
	switch o := simulator.Map.Get(parent).(type) {
	case *Folder:
		children = o.ChildEntity
	case *simulator.Folder:
		children = o.ChildEntity
	case *simulator.Datacenter:
		children = []types.ManagedObjectReference{o.VmFolder, o.HostFolder, o.DatastoreFolder, o.NetworkFolder}
	case *mo.ComputeResource:
		children = append([]types.ManagedObjectReference{*o.ResourcePool}, o.Host...)
	case *simulator.ClusterComputeResource:
		children = append([]types.ManagedObjectReference{*o.ResourcePool}, o.Host...)
	case *simulator.ResourcePool:
		children = o.ResourcePool.ResourcePool
	default:
		return nil
	}
	e := simulator.Map.FindByName(name, children)
	if e == nil {
		return nil
	}
	ref := e.Reference()
	return &ref
}
