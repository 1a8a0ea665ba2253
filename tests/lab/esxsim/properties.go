package main

// The property collector's waiting calls, by comparing states. The stock simulator loses updates between the first
// collection and the listener, and its sessions take one another's; this one keeps, per filter, what it saw and when.

import (
	"fmt"
	"strconv"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

const (
	pollEvery = 30 * time.Millisecond
	longWait  = 60 * time.Second
)

// PropertyCollector replaces the simulator's; each session has its own.
type PropertyCollector struct {
	simulator.PropertyCollector
	version int
	seen    map[types.ManagedObjectReference]map[types.ManagedObjectReference]map[string]*seenValue
}

type seenValue struct {
	digest  string
	val     types.AnyType
	version int
	gone    bool
}

func (pc *PropertyCollector) CreatePropertyCollector(ctx *simulator.Context, _ *types.CreatePropertyCollector) soap.HasFault {
	return &methods.CreatePropertyCollectorBody{Res: &types.CreatePropertyCollectorResponse{
		Returnval: ctx.Session.Put(&PropertyCollector{}).Reference()}}
}

func (pc *PropertyCollector) WaitForUpdates(ctx *simulator.Context, r *types.WaitForUpdates) soap.HasFault {
	set, fault := pc.wait(ctx, r.Version, longWait)
	if fault != nil {
		return &methods.WaitForUpdatesBody{Fault_: fault}
	}
	if set == nil {
		set = &types.UpdateSet{Version: r.Version}
	}
	return &methods.WaitForUpdatesBody{Res: &types.WaitForUpdatesResponse{Returnval: *set}}
}

func (pc *PropertyCollector) CheckForUpdates(ctx *simulator.Context, r *types.CheckForUpdates) soap.HasFault {
	set, fault := pc.wait(ctx, r.Version, 0)
	if fault != nil {
		return &methods.CheckForUpdatesBody{Fault_: fault}
	}
	return &methods.CheckForUpdatesBody{Res: &types.CheckForUpdatesResponse{Returnval: set}}
}

func (pc *PropertyCollector) WaitForUpdatesEx(ctx *simulator.Context, r *types.WaitForUpdatesEx) soap.HasFault {
	limit := longWait
	if r.Options != nil && r.Options.MaxWaitSeconds != nil {
		limit = time.Duration(*r.Options.MaxWaitSeconds) * time.Second
	}
	set, fault := pc.wait(ctx, r.Version, limit)
	if fault != nil {
		return &methods.WaitForUpdatesExBody{Fault_: fault}
	}
	return &methods.WaitForUpdatesExBody{Res: &types.WaitForUpdatesExResponse{Returnval: set}}
}

// wait returns what changed since the version, nil if nothing did within the limit. It is called with the inventory
// lock held and gives it up while it sleeps.
func (pc *PropertyCollector) wait(ctx *simulator.Context, version string, limit time.Duration) (*types.UpdateSet, *soap.Fault) {
	since, _ := strconv.Atoi(version)
	for end := time.Now().Add(limit); ; {
		if fault := pc.look(ctx); fault != nil {
			return nil, fault
		}
		if set := pc.changes(since); set != nil {
			return set, nil
		}
		if !time.Now().Before(end) {
			return nil, nil
		}
		theSite.inventory.Unlock()
		time.Sleep(pollEvery)
		theSite.inventory.Lock()
	}
}

// look collects every filter's state and marks what differs from the last look.
func (pc *PropertyCollector) look(ctx *simulator.Context) *soap.Fault {
	now := map[types.ManagedObjectReference]map[types.ManagedObjectReference]map[string]*seenValue{}
	pc.version++
	for _, ref := range pc.Filter {
		filter := ctx.Session.Get(ref).(*simulator.PropertyFilter)
		res := pc.RetrievePropertiesEx(ctx, &types.RetrievePropertiesEx{SpecSet: []types.PropertyFilterSpec{filter.Spec}})
		if fault := res.Fault(); fault != nil {
			return fault
		}
		now[ref] = map[types.ManagedObjectReference]map[string]*seenValue{}
		for _, o := range res.(*methods.RetrievePropertiesExBody).Res.Returnval.Objects {
			values := map[string]*seenValue{"": {version: pc.version}}
			for _, p := range o.PropSet {
				values[p.Name] = &seenValue{digest: digest(p.Val), val: p.Val, version: pc.version}
			}
			now[ref][o.Obj] = values
		}
		pc.compare(pc.seen[ref], now[ref])
	}
	pc.seen = now
	return nil
}

// compare takes over the versions of what did not change, and remembers what is gone.
func (pc *PropertyCollector) compare(old, now map[types.ManagedObjectReference]map[string]*seenValue) {
	for obj, values := range old {
		if now[obj] == nil {
			v := values[""].version
			if !values[""].gone {
				v = pc.version
			}
			now[obj] = map[string]*seenValue{"": {version: v, gone: true}}
			continue
		}
		for name, was := range values {
			is := now[obj][name]
			switch {
			case is == nil && was.val == nil:
				now[obj][name] = was
			case is == nil:
				now[obj][name] = &seenValue{version: pc.version}
			case is.digest == was.digest && is.gone == was.gone:
				is.version = was.version
			}
		}
	}
}

// changes renders what is newer than the version.
func (pc *PropertyCollector) changes(since int) *types.UpdateSet {
	set := &types.UpdateSet{Version: strconv.Itoa(pc.version)}
	for filter, objects := range pc.seen {
		fu := types.PropertyFilterUpdate{Filter: filter}
		for obj, values := range objects {
			if u := update(obj, values, since); u != nil {
				fu.ObjectSet = append(fu.ObjectSet, *u)
			}
		}
		if fu.ObjectSet != nil {
			set.FilterSet = append(set.FilterSet, fu)
		}
	}
	if set.FilterSet == nil {
		return nil
	}
	return set
}

func update(obj types.ManagedObjectReference, values map[string]*seenValue, since int) *types.ObjectUpdate {
	u := &types.ObjectUpdate{Obj: obj, Kind: types.ObjectUpdateKindModify}
	self := values[""]
	if self.version > since {
		u.Kind = types.ObjectUpdateKindEnter
		if self.gone {
			if since == 0 {
				return nil
			}
			u.Kind = types.ObjectUpdateKindLeave
		}
	}
	for name, v := range values {
		if name != "" && v.version > since && (v.val != nil || u.Kind == types.ObjectUpdateKindModify) {
			u.ChangeSet = append(u.ChangeSet, types.PropertyChange{Op: types.PropertyChangeOpAssign, Name: name, Val: v.val})
		}
	}
	if u.ChangeSet == nil && u.Kind == types.ObjectUpdateKindModify {
		return nil
	}
	return u
}

func digest(val types.AnyType) string {
	raw, err := xml.Marshal(val)
	if err != nil {
		return fmt.Sprintf("%v", val)
	}
	return string(raw)
}
