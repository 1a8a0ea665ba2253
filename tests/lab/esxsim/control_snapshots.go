package main

// Control verbs that make, remove and revert to snapshots, as another administrator would.

import (
	"encoding/json"
	"fmt"

	"github.com/vmware/govmomi/vim25/types"
)

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
