package main

// The verb that changes a machine past the API.

import (
	"encoding/json"
	"fmt"

	"github.com/vmware/govmomi/vim25/types"
)

// vmChange is a change that a test asks for; what is absent stays.
type vmChange struct {
	VM                  string            `json:"vm"`
	Power               *string           `json:"power"`
	Tools               *bool             `json:"tools"`
	Template            *bool             `json:"template"`
	Passthrough         *bool             `json:"passthrough"`
	VTPM                *bool             `json:"vtpm"`
	EncryptionKey       *string           `json:"encryption_key"`
	ConsolidationNeeded *bool             `json:"consolidation_needed"`
	SeSparse            *bool             `json:"sesparse"`
	DenyQuiesced        *bool             `json:"deny_quiesced"`
	FailQuiesce         *bool             `json:"fail_quiesce"`
	InstanceUUID        *string           `json:"instance_uuid"`
	Name                *string           `json:"name"`
	BusSharing          *string           `json:"bus_sharing"` // no, virtual, physical; for all SCSI controllers
	DiskModes           map[string]string `json:"disk_modes"`  // "0": "independent_persistent"
}

func setVM(s *site, raw json.RawMessage) (interface{}, error) {
	q := &vmChange{}
	if err := decode(raw, q); err != nil {
		return nil, err
	}
	v, err := s.lockedVM(q.VM)
	if err != nil {
		return nil, err
	}
	err = v.both(func() error {
		if err := v.applyPower(q); err != nil {
			return err
		}
		v.applyMarks(q)
		v.applyDevices(q)
		v.render()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return v.report(), nil
}

func (v *VirtualMachine) applyPower(q *vmChange) error {
	if q.Power == nil {
		return nil
	}
	states := map[string]types.VirtualMachinePowerState{"on": on, "off": off, "suspended": suspended}
	state, ok := states[*q.Power]
	if !ok {
		return fmt.Errorf("power %q: on, off or suspended", *q.Power)
	}
	if state != v.powerState() {
		v.setPower(state)
	}
	return nil
}

func (v *VirtualMachine) applyMarks(q *vmChange) {
	if q.Tools != nil {
		v.setTools(*q.Tools)
	}
	if q.Template != nil {
		v.Config.Template, v.Summary.Config.Template = *q.Template, *q.Template
	}
	if q.EncryptionKey != nil {
		v.Config.KeyId = nil
		if *q.EncryptionKey != "" {
			v.Config.KeyId = &types.CryptoKeyId{KeyId: *q.EncryptionKey, ProviderId: &types.KeyProviderId{Id: "lab"}}
		}
	}
	if q.ConsolidationNeeded != nil {
		v.Runtime.ConsolidationNeeded = q.ConsolidationNeeded
	}
	if q.SeSparse != nil {
		v.seSparse = q.SeSparse
	}
	if q.DenyQuiesced != nil {
		v.denyQuiet = *q.DenyQuiesced
	}
	if q.FailQuiesce != nil {
		v.failQuiet = *q.FailQuiesce
	}
	if q.InstanceUUID != nil {
		v.Config.InstanceUuid, v.Summary.Config.InstanceUuid = *q.InstanceUUID, *q.InstanceUUID
	}
	if q.Name != nil {
		v.Name, v.Config.Name, v.Summary.Config.Name = *q.Name, *q.Name, *q.Name
	}
}

func (v *VirtualMachine) applyDevices(q *vmChange) {
	var kept []types.BaseVirtualDevice
	for _, dev := range v.Config.Hardware.Device {
		switch d := dev.(type) {
		case *types.VirtualPCIPassthrough:
			if q.Passthrough != nil {
				continue
			}
		case *types.VirtualTPM:
			if q.VTPM != nil {
				continue
			}
		case types.BaseVirtualSCSIController:
			if q.BusSharing != nil {
				d.GetVirtualSCSIController().SharedBus = types.VirtualSCSISharing(*q.BusSharing + "Sharing")
			}
		}
		kept = append(kept, dev)
	}
	b := newDeviceBuilder(kept)
	b.addTroubles(isTrue(q.Passthrough), isTrue(q.VTPM))
	for i, d := range virtualDisks(b.list) {
		if mode := q.DiskModes[fmt.Sprint(i)]; mode != "" && flatBacking(d) != nil {
			flatBacking(d).DiskMode = mode
			v.disks[d.Key].independent = isIndependent(mode)
		}
	}
	v.Config.Hardware.Device = b.list
}
