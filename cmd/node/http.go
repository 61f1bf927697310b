package node

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// check is one line of /readyz?verbose.
type check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

// serveHTTP serves metrics, health and profiles on ln until ctx ends.
//
// /livez says that the process works at all and never looks at the store. /readyz says that clients are served: it stays
// true while the store is away, for as long as the local disk has room.
func (n *Node) serveHTTP(ctx context.Context, ln net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(n.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	for _, path := range []string{"GET /readyz", "GET /startupz", "GET /v1/status/ready"} {
		mux.HandleFunc(path, n.readyz)
	}
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (n *Node) readyz(w http.ResponseWriter, r *http.Request) {
	checks := n.checks()
	ready := true
	for _, c := range checks {
		ready = ready && c.OK
	}
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if r.URL.Query().Has("verbose") {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(checks)
		return
	}
	if ready {
		_, _ = w.Write([]byte("ready\n"))
		return
	}
	for _, c := range checks {
		if !c.OK {
			_, _ = w.Write([]byte(c.Name + ": " + c.Reason + "\n"))
		}
	}
}
