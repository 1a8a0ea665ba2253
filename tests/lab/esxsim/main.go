// Command esxsim simulates one ESX host or one vCenter with two hosts, with real disks behind its machines.
package main

import (
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
)

// site is the one simulated installation of this process.
type site struct {
	inventory sync.Mutex // every object of the simulator; taken after a machine's io lock
	service   *simulator.Service
	client    *vim25.Client
	mux       http.Handler
	injected  *fault // for the call at hand; guarded by inventory

	state, version, address, thumbprint, datacenter, firstStore string

	stores       map[string]*store // fixed after the start
	rootVMFolder types.ManagedObjectReference

	mu        sync.Mutex // all below
	faults    []*fault
	lastFault int
	users     map[string]*user
	sessions  map[string]*session
	perf      map[string]map[string][]int64
	calls     map[string]int
	settings  settings
}

var theSite = &site{
	stores: map[string]*store{}, users: map[string]*user{}, sessions: map[string]*session{}, perf: map[string]map[string][]int64{},
	calls: map[string]int{}, settings: settings{MaxAreas: 1000, LeaseS: 300},
}

func hash32(s string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(s))
	return h.Sum32()
}

type capacity struct {
	name string
	mb   int64
}

type capacities []capacity

func (c *capacities) String() string { return "" }

func (c *capacities) Set(s string) error {
	name, size, ok := strings.Cut(s, "=")
	mb, err := strconv.ParseInt(size, 10, 64)
	if !ok || err != nil {
		return fmt.Errorf("want NAME=MB")
	}
	*c = append(*c, capacity{name, mb})
	return nil
}

type options struct {
	model, listen, control, state, cert, key, user, password, version string
	hosts                                                             int
	stores                                                            capacities
}

func parse() *options {
	o := &options{}
	flag.StringVar(&o.model, "model", "esx", "esx or vpx")
	flag.IntVar(&o.hosts, "hosts", 2, "hosts of a vCenter")
	flag.StringVar(&o.listen, "listen", "127.0.0.1:0", "address of the API")
	flag.StringVar(&o.control, "control", "127.0.0.1:0", "address of the control API")
	flag.StringVar(&o.state, "state", "esxsim-state", "folder of the datastores")
	flag.StringVar(&o.cert, "cert", "", "HTTPS certificate (PEM), made if missing")
	flag.StringVar(&o.key, "key", "", "its key")
	flag.StringVar(&o.user, "user", "root", "administrator")
	flag.StringVar(&o.password, "password", "VMware1!", "its password")
	flag.StringVar(&o.version, "version", "7.0.3", "product version")
	flag.Var(&o.stores, "datastore", "NAME=MB; may be repeated (default datastore1=4096)")
	flag.Parse()
	if len(o.stores) == 0 {
		o.stores = capacities{{"datastore1", 4096}}
	}
	if o.cert == "" {
		o.cert, o.key = filepath.Join(o.state, "esxsim.pem"), filepath.Join(o.state, "esxsim.key")
	}
	return o
}

// build makes the inventory.
func (s *site) build(o *options) error {
	m := simulator.VPX()
	if o.model == "esx" {
		m = simulator.ESX()
	}
	m.Machine, m.Datastore, m.Autostart, m.Portgroup, m.ClusterHost, m.Cluster, m.Host = 0, 0, false, 0, 0, 0, o.hosts
	about := &m.ServiceContent.About
	about.FullName = strings.Replace(about.FullName, about.Version, o.version, 1)
	about.Version, about.ApiVersion, about.Build = o.version, o.version+".0", "21930508"
	if err := m.Create(); err != nil {
		return err
	}
	simulator.Map.AddHandler(taskRepair{})
	s.state, s.version, s.service = o.state, o.version, m.Service
	s.service.RegisterEndpoints = true
	s.service.Listen = &url.URL{Host: "127.0.0.1:0"}
	s.service.NewServer() // it is there to register the endpoints; we serve its mux
	s.mux = s.service.ServeMux
	var err error
	if s.client, err = vim25.NewClient(context.Background(), s.service); err != nil {
		return err
	}
	for _, c := range o.stores {
		if err = s.addDatastore(context.Background(), c.name, c.mb); err != nil {
			return err
		}
	}
	s.firstStore = o.stores[0].name
	for _, e := range simulator.Map.All("Datacenter") {
		s.datacenter = e.(*simulator.Datacenter).Name
	}
	for _, e := range simulator.Map.All("HostSystem") {
		h := e.(*simulator.HostSystem)
		h.Summary.Config.Product.Version, h.Summary.Config.Product.ApiVersion = o.version, o.version+".0"
	}
	s.replaceServices()
	s.users[o.user] = &user{Name: o.user, Password: o.password}
	return nil
}

// serve listens on both ports and returns the addresses.
func (s *site) serve(o *options) (api, control string, err error) {
	ln, err := net.Listen("tcp", o.listen)
	if err != nil {
		return "", "", err
	}
	host, _, _ := net.SplitHostPort(o.listen)
	cert, err := certificate(o.cert, o.key, host)
	if err != nil {
		return "", "", err
	}
	s.address = ln.Addr().String()
	s.thumbprint = strings.ToUpper(strings.ReplaceAll(fmt.Sprintf("% x", sha1.Sum(cert.Certificate[0])), " ", ":"))
	panics := log.New(os.Stderr, "", log.LstdFlags)
	server := &http.Server{Handler: s, ErrorLog: panics, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}}
	go server.ServeTLS(ln, "", "")
	cl, err := net.Listen("tcp", o.control)
	if err != nil {
		return "", "", err
	}
	go (&http.Server{Handler: http.HandlerFunc(s.controlHandler), ErrorLog: panics}).Serve(cl)
	return "https://" + s.address, "http://" + cl.Addr().String(), nil
}

func main() {
	o := parse()
	log.SetOutput(io.Discard)
	if os.Getenv("ESXSIM_LOG") != "" {
		log.SetOutput(os.Stderr)
	}
	err := os.MkdirAll(o.state, 0700)
	if err == nil {
		err = theSite.build(o)
	}
	var api, control string
	if err == nil {
		api, control, err = theSite.serve(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "esxsim:", err)
		os.Exit(1)
	}
	go theSite.watchSpace()
	json.NewEncoder(os.Stdout).Encode(map[string]string{"url": api, "control": control, "model": o.model, "datacenter": theSite.datacenter, "cert": o.cert})
	done := make(chan os.Signal, 1)
	signal.Notify(done, os.Interrupt, syscall.SIGTERM)
	<-done
}

// watchSpace shows what the guests' writes take, every few seconds.
func (s *site) watchSpace() {
	for range time.Tick(3 * time.Second) {
		s.refreshSpace()
	}
}
