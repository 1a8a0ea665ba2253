package main

// Users and sessions. A session ends by logout, by idleness or by the control API.

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/types"
)

const cookieName = "vmware_soap_session"

type user struct {
	Name     string   `json:"name"`
	Password string   `json:"password"`
	Deny     []string `json:"deny"` // globs of methods that answer NoPermission
}

type session struct {
	user string
	used time.Time
}

func cookieOf(c *http.Cookie) string { return strings.Trim(c.Value, `"`) }

func (s *site) login(w http.ResponseWriter, r *http.Request, req *types.Login) {
	s.count("Login")
	if f := s.match("Login", ""); f != nil {
		f.sleep()
		switch f.Kind {
		case "soap":
			writeFault(w, f.Fault, f.Message, "")
			return
		case "http":
			w.WriteHeader(f.Status)
			return
		case "drop":
			panic(http.ErrAbortHandler)
		}
	}
	if !s.password(req.UserName, req.Password) {
		writeFault(w, "InvalidLogin", "Cannot complete login due to an incorrect user name or password.", "")
		return
	}
	r.Header.Del("Cookie") // a second login on one connection replaces the session
	rec := httptest.NewRecorder()
	s.locked(func() { s.service.ServeSDK(rec, r) })
	s.mu.Lock()
	for _, c := range rec.Result().Cookies() {
		s.sessions[cookieOf(c)] = &session{req.UserName, time.Now()}
	}
	s.mu.Unlock()
	for _, c := range rec.Result().Cookies() {
		w.Header().Add("Set-Cookie", fmt.Sprintf(`%s="%s"; Path=/; HttpOnly; Secure;`, c.Name, cookieOf(c)))
	}
	w.WriteHeader(rec.Code)
	w.Write(rec.Body.Bytes())
}

func (s *site) password(name, password string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[name]
	return u != nil && u.Password == password
}

// userOf returns who asks, by session or by basic authentication; empty for nobody.
func (s *site) userOf(r *http.Request) string {
	if c, err := r.Cookie(cookieName); err == nil {
		if name := s.touchSession(cookieOf(c)); name != "" {
			if c.Value != cookieOf(c) || strings.Contains(r.Header.Get("Cookie"), `"`) {
				r.Header.Set("Cookie", cookieName+"="+cookieOf(c)) // the simulator knows the bare value
			}
			return name
		}
		r.Header.Del("Cookie")
	}
	if name, password, ok := r.BasicAuth(); ok && s.password(name, password) {
		return name
	}
	return ""
}

func (s *site) touchSession(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.sessions[id]
	if x == nil {
		return ""
	}
	if idle := s.settings.IdleS; idle > 0 && time.Since(x.used) > time.Duration(idle*float64(time.Second)) {
		delete(s.sessions, id)
		return ""
	}
	x.used = time.Now()
	return x.user
}

func (s *site) endSession(r *http.Request) {
	if c, err := r.Cookie(cookieName); err == nil {
		s.mu.Lock()
		delete(s.sessions, cookieOf(c))
		s.mu.Unlock()
	}
}

func (s *site) count(method string) {
	s.mu.Lock()
	s.calls[method]++
	s.mu.Unlock()
}
