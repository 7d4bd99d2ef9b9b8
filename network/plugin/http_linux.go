package plugin

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// maxBody is far more than an engine ever sends.
const maxBody = 1 << 20

const contentType = "application/vnd.docker.plugins.v1.2+json"

// handler routes the calls of Docker's plugin protocol: each is a POST of one
// JSON object, answered by another.
func (p *Plugin) handler() http.Handler {
	mux := http.NewServeMux()
	handle(p, mux, "Plugin.Activate", func(struct{}) (any, error) {
		return map[string]any{"Implements": []string{"NetworkDriver", "IpamDriver"}}, nil
	})

	handle(p, mux, "IpamDriver.GetCapabilities", func(struct{}) (any, error) {
		return map[string]bool{"RequiresMACAddress": false, "RequiresRequestReplay": false}, nil
	})
	handle(p, mux, "IpamDriver.GetDefaultAddressSpaces", func(struct{}) (any, error) {
		return map[string]string{"LocalDefaultAddressSpace": Driver, "GlobalDefaultAddressSpace": Driver}, nil
	})
	handle(p, mux, "IpamDriver.RequestPool", p.requestPool)
	handle(p, mux, "IpamDriver.ReleasePool", nothing)
	handle(p, mux, "IpamDriver.RequestAddress", p.requestAddress)
	handle(p, mux, "IpamDriver.ReleaseAddress", p.releaseAddress)

	handle(p, mux, "NetworkDriver.GetCapabilities", func(struct{}) (any, error) {
		return map[string]any{"Scope": "local", "ConnectivityScope": "local"}, nil
	})
	handle(p, mux, "NetworkDriver.CreateNetwork", p.createNetwork)
	handle(p, mux, "NetworkDriver.DeleteNetwork", p.deleteNetwork)
	handle(p, mux, "NetworkDriver.CreateEndpoint", p.createEndpoint)
	handle(p, mux, "NetworkDriver.EndpointOperInfo", func(struct{}) (any, error) {
		return map[string]any{"Value": map[string]string{}}, nil
	})
	handle(p, mux, "NetworkDriver.DeleteEndpoint", p.deleteEndpoint)
	handle(p, mux, "NetworkDriver.Join", p.join)
	handle(p, mux, "NetworkDriver.Leave", p.leave)
	handle(p, mux, "NetworkDriver.ProgramExternalConnectivity", p.publish)
	for _, call := range []string{"RevokeExternalConnectivity", "DiscoverNew", "DiscoverDelete"} {
		handle(p, mux, "NetworkDriver."+call, nothing)
	}
	return mux
}

// nothing answers calls that need no action.
func nothing(struct{}) (any, error) { return struct{}{}, nil }

func handle[Req any](p *Plugin, mux *http.ServeMux, call string, f func(Req) (any, error)) {
	mux.HandleFunc("/"+call, func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		var req Req
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&req)
		if errors.Is(err, io.EOF) {
			err = nil // engines send no body where there is nothing to say
		}
		var resp any
		if err == nil {
			resp, err = f(req)
		}
		if err != nil {
			p.log.Warn("refused the engine's call", zap.String("call", call), zap.Error(err))
			// The two protocols name the field differently.
			resp = map[string]string{"Err": err.Error(), "Error": err.Error()}
		}
		w.Header().Set("Content-Type", contentType)
		if err := json.NewEncoder(w).Encode(resp); err != nil {
			p.log.Debug("engine hung up", zap.String("call", call), zap.Error(err))
		}
		p.log.Debug("engine's call", zap.String("call", call), zap.Duration("took", time.Since(start)))
	})
}
