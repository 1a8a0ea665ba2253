package main

// The HTTPS front: sessions, permissions and injected faults stand before the simulator's own SOAP service, which runs
// under the inventory lock, so that nothing it shows can change while it is written out.

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

const envelope = `<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>%s</soapenv:Body></soapenv:Envelope>`

func escape(s string) string {
	var b bytes.Buffer
	xml.EscapeText(&b, []byte(s))
	return b.String()
}

func writeFault(w http.ResponseWriter, fault, message, inner string) {
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.WriteHeader(http.StatusInternalServerError)
	fmt.Fprintf(w, envelope, fmt.Sprintf(`<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>%s</faultstring><detail>`+
		`<%[2]sFault xmlns="urn:vim25" xsi:type="%[2]s">%[3]s</%[2]sFault></detail></soapenv:Fault>`, escape(message), fault, inner))
}

func writeResult(w http.ResponseWriter, method, inner string) {
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	fmt.Fprintf(w, envelope, fmt.Sprintf(`<%[1]sResponse xmlns="urn:vim25">%[2]s</%[1]sResponse>`, method, inner))
}

func privilege(ref types.ManagedObjectReference, name string) string {
	return fmt.Sprintf(`<object type="%s">%s</object><privilegeId>%s</privilegeId>`, ref.Type, escape(ref.Value), name)
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/sdk" || r.URL.Path == "/sdk/vimService":
		s.serveSDK(w, r)
	case strings.HasPrefix(r.URL.Path, "/folder"):
		s.serveFolder(w, r)
	case strings.HasPrefix(r.URL.Path, "/nfc/"):
		s.serveExport(w, r)
	default:
		s.mux.ServeHTTP(w, r)
	}
}

func (s *site) serveSDK(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(raw))
	m, err := simulator.UnmarshalBody(types.TypeFunc(), raw)
	if err != nil {
		s.forward(w, r, "", nil)
		return
	}
	if req, ok := m.Body.(*types.Login); ok {
		s.login(w, r, req)
		return
	}
	s.count(m.Name)
	user := s.userOf(r)
	if user == "" && m.This.Type != "ServiceInstance" && asks(m, "SessionManager") {
		writeResult(w, m.Name, noSession(m)) // its properties are unset for nobody
		return
	}
	if user == "" && !anonymous(m) {
		writeFault(w, "NotAuthenticated", "The session is not authenticated.", privilege(m.This, "System.View"))
		return
	}
	if s.denied(user, m.Name) {
		writeFault(w, "NoPermission", "Permission to perform this operation was denied.", privilege(m.This, "VirtualMachine."+m.Name))
		return
	}
	f := s.match(m.Name, "", s.namesOf(m.This)...)
	if f != nil && s.faultBefore(w, m, f) {
		return
	}
	if m.Name == "CurrentTime" {
		writeResult(w, m.Name, "<returnval>"+s.now().UTC().Format("2006-01-02T15:04:05.000000Z")+"</returnval>")
		return
	}
	if ref, ok := s.found(m); ok {
		writeResult(w, m.Name, ref)
		return
	}
	s.forward(w, r, m.Name, f)
	if m.Name == "Logout" {
		s.endSession(r)
	}
}

// faultBefore carries out what happens instead of the call, and says whether the call is thereby answered.
func (s *site) faultBefore(w http.ResponseWriter, m *simulator.Method, f *fault) bool {
	f.sleep()
	switch f.Kind {
	case "soap":
		inner := ""
		if f.Fault == "NoPermission" || f.Fault == "NotAuthenticated" {
			inner = privilege(m.This, "System.View")
		}
		writeFault(w, f.Fault, f.Message, inner)
		return true
	case "http":
		w.WriteHeader(f.Status)
		return true
	case "drop":
		panic(http.ErrAbortHandler)
	}
	if f.Kind == "task" && !s.ours(m.This) {
		s.inventory.Lock()
		s.injected = f
		ref := s.task(m.This, strings.TrimSuffix(m.Name, "_Task"), nil)
		s.inventory.Unlock()
		writeResult(w, m.Name, `<returnval type="Task">`+ref.Value+`</returnval>`)
		return true
	}
	return false
}

// ours says whether a method of the object makes our kind of task.
func (s *site) ours(ref types.ManagedObjectReference) bool {
	switch simulator.Map.Get(ref).(type) {
	case *VirtualMachine, *VirtualMachineSnapshot:
		return true
	}
	return false
}

// forward has the simulator answer; a "lost" fault then keeps the answer from the client.
func (s *site) forward(w http.ResponseWriter, r *http.Request, method string, f *fault) {
	rec := httptest.NewRecorder()
	s.locked(func() {
		s.injected = f
		defer func() {
			s.injected = nil
			if method == "Fetch" && recover() != nil { // the simulator panics on a property that is not set
				rec = httptest.NewRecorder()
				writeResult(rec, method, "")
			}
		}()
		s.service.ServeSDK(rec, r)
	})
	if method == "RefreshDatastore" || method == "RefreshDatastoreStorageInfo" {
		s.refreshSpace()
	}
	if f != nil && f.Kind == "lost" {
		panic(http.ErrAbortHandler)
	}
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	w.Write(rec.Body.Bytes())
}

func (s *site) locked(fn func()) {
	s.inventory.Lock()
	defer s.inventory.Unlock()
	fn()
}

// namesOf gives the names by which a fault may address the machine that a call is about.
func (s *site) namesOf(ref types.ManagedObjectReference) []string {
	s.inventory.Lock()
	defer s.inventory.Unlock()
	var v *VirtualMachine
	switch o := simulator.Map.Get(ref).(type) {
	case *VirtualMachine:
		v = o
	case *VirtualMachineSnapshot:
		v = o.vm
	case *HttpNfcLease:
		v = o.vm
	}
	if v == nil {
		return nil
	}
	return []string{v.Name, v.Self.Value}
}

func (s *site) denied(user, method string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.users[user]; u != nil {
		for _, glob := range u.Deny {
			if ok, _ := path.Match(glob, method); ok {
				return true
			}
		}
	}
	return false
}
