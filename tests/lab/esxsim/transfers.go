package main

// /folder: reading and writing a datastore's files over HTTPS, with Range, as ESX and vCenter offer it.

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
)

func (s *site) serveFolder(w http.ResponseWriter, r *http.Request) {
	s.count(r.Method + " /folder")
	if s.userOf(r) == "" {
		w.Header().Set("WWW-Authenticate", `Basic realm="VMware HTTP server"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	d := s.stores[r.URL.Query().Get("dsName")]
	dc := r.URL.Query().Get("dcPath")
	if d == nil || dc != "" && dc != s.datacenter {
		http.NotFound(w, r)
		return
	}
	where := strings.TrimPrefix(r.URL.Path, "/folder")
	file := filepath.Join(d.root, filepath.Clean("/"+where))
	f := s.match(r.Method, "["+d.name+"] "+strings.TrimPrefix(where, "/"))
	if f != nil {
		f.sleep()
		switch f.Kind {
		case "http":
			w.WriteHeader(f.Status)
			return
		case "drop":
			if f.AfterBytes == 0 {
				panic(http.ErrAbortHandler)
			}
		}
	}
	switch r.Method {
	case http.MethodPut, http.MethodPost:
		s.upload(w, r, d, file, f)
	case http.MethodDelete:
		if os.Remove(file) != nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		s.download(w, r, file, f)
	}
}

// inUse says whether a running machine has the file open for itself.
func (s *site) inUse(file string) bool {
	s.inventory.Lock()
	defer s.inventory.Unlock()
	for _, e := range simulator.Map.All("VirtualMachine") {
		v, ok := e.(*VirtualMachine)
		if !ok || v.powerState() != on {
			continue
		}
		if strings.HasPrefix(file, v.dir()+"/") && strings.HasSuffix(file, ".vswp") {
			return true
		}
		for _, d := range virtualDisks(v.Config.Hardware.Device) {
			b := flatBacking(d)
			if b == nil {
				continue
			}
			head := localPath(b.FileName)
			if file == changeFile(head) {
				return true
			}
			if desc, err := readDescriptor(head); err == nil && filepath.Join(filepath.Dir(head), desc.Extent) == file {
				return true
			}
		}
	}
	return false
}

func (s *site) download(w http.ResponseWriter, r *http.Request, file string, flt *fault) {
	st, err := os.Stat(file)
	if err != nil || st.IsDir() {
		http.NotFound(w, r)
		return
	}
	if s.inUse(file) {
		http.Error(w, "Internal Server Error", http.StatusInternalServerError)
		return
	}
	f, err := os.Open(file)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer f.Close()
	start, end, status := span(r.Header.Get("Range"), st.Size())
	if flt != nil && flt.Kind == "ignore_range" {
		start, end, status = 0, st.Size(), http.StatusOK
	}
	h := w.Header()
	h.Set("Accept-Ranges", "bytes")
	if status == http.StatusRequestedRangeNotSatisfiable {
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", st.Size()))
		w.WriteHeader(status)
		return
	}
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Last-Modified", st.ModTime().UTC().Format(http.TimeFormat))
	length := end - start
	if flt != nil && flt.Kind == "lie" && flt.AfterBytes < length {
		length = flt.AfterBytes
	}
	h.Set("Content-Length", strconv.FormatInt(length, 10))
	if status == http.StatusPartialContent {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, end-1, st.Size()))
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		io.Copy(&shaped{w: w, f: flt}, io.NewSectionReader(f, start, length))
	}
}

// span reads a single range: [start, end) and the status.
func span(header string, size int64) (int64, int64, int) {
	spec := strings.TrimPrefix(header, "bytes=")
	from, to, ok := strings.Cut(spec, "-")
	if spec == header || !ok || strings.Contains(spec, ",") {
		return 0, size, http.StatusOK
	}
	start, err := strconv.ParseInt(from, 10, 64)
	end, errTo := strconv.ParseInt(to, 10, 64)
	switch {
	case from == "" && errTo == nil && end > 0:
		if start = size - end; start < 0 {
			start = 0
		}
		return start, size, http.StatusPartialContent
	case err != nil || start >= size || to != "" && (errTo != nil || end < start):
		return 0, 0, http.StatusRequestedRangeNotSatisfiable
	case to == "" || end >= size:
		end = size - 1
	}
	return start, end + 1, http.StatusPartialContent
}

func (s *site) upload(w http.ResponseWriter, r *http.Request, d *store, file string, flt *fault) {
	d.recount()
	if r.ContentLength > d.free() {
		io.Copy(io.Discard, r.Body) // answer at the end, so that the client hears it
		http.Error(w, "No space left on device", http.StatusInternalServerError)
		return
	}
	_, missing := os.Stat(file)
	os.MkdirAll(filepath.Dir(file), 0700)
	f, err := os.Create(file)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	defer f.Close()
	var to io.Writer = f
	if flt != nil {
		to = &shaped{w: f, f: flt}
	}
	if _, err = io.Copy(to, r.Body); err != nil {
		return
	}
	d.recountFolder(file)
	s.locked(s.publishSpace)
	if missing != nil {
		w.WriteHeader(http.StatusCreated)
	}
}

// shaped is a transfer under a fault: cut, stalled, slowed or damaged.
type shaped struct {
	w io.Writer
	f *fault
	n int64
}

func (t *shaped) Write(p []byte) (int, error) {
	if t.f == nil {
		return t.w.Write(p)
	}
	at := t.f.AfterBytes
	passes := at >= t.n && at < t.n+int64(len(p))
	switch t.f.Kind {
	case "drop", "short":
		if passes {
			t.w.Write(p[:at-t.n])
			if fl, ok := t.w.(http.Flusher); ok {
				fl.Flush()
			}
			panic(http.ErrAbortHandler)
		}
	case "stall":
		if passes {
			t.w.Write(p[:at-t.n])
			if fl, ok := t.w.(http.Flusher); ok {
				fl.Flush()
			}
			t.f.wait()
			panic(http.ErrAbortHandler)
		}
	case "corrupt":
		if passes {
			p = append([]byte(nil), p...)
			p[at-t.n] ^= 0xff
		}
	}
	if t.f.RateKBs > 0 {
		time.Sleep(time.Duration(len(p)) * time.Second / time.Duration(t.f.RateKBs<<10))
	}
	n, err := t.w.Write(p)
	t.n += int64(n)
	return n, err
}
