//go:build linux

package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/cluster/ca"
	"shoal/internal/api"
	"shoal/internal/control"
	"shoal/internal/store"
)

// FuzzStranger is everything that somebody without a certificate can send to the
// endpoints that take it. Without the token nobody becomes a node.
func FuzzStranger(f *testing.F) {
	root, err := ca.NewRoot("c1", time.Now())
	if err != nil {
		f.Fatal(err)
	}
	rootKey, err := root.KeyPEM()
	if err != nil {
		f.Fatal(err)
	}
	token := func() string { return ca.Token{Digest: ca.Digest(root.Cert), Secret: ca.NewSecret()}.String() }
	m := newManager(identity{NodeID: "m1", ClusterID: "c1"}, nil, zap.NewNop())
	err = m.store.Update(context.Background(), func(tx *store.Tx) error {
		return tx.Put(&api.Cluster{
			Meta: api.Meta{ID: "c1"}, RootCA: api.RootCA{Cert: root.CertPEM(), Key: rootKey},
			JoinTokens: swarm.JoinTokens{Manager: token(), Worker: token()},
		})
	})
	if err != nil {
		f.Fatal(err)
	}
	m.leading.Store(true)
	m.api = http.NotFoundHandler()
	m.echo = func(*http.Request) (any, error) { return struct{}{}, nil }
	srv, err := peerServer(m, m.endpoints(), m.log)
	if err != nil {
		f.Fatal(err)
	}
	csr, _, err := ca.NewRequest()
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(control.Applicant{Token: token(), Request: csr, Addr: "10.0.0.2:2377", Availability: swarm.NodeAvailabilityActive})
	if err != nil {
		f.Fatal(err)
	}
	proof, err := json.Marshal(ca.Proof{Chain: root.CertPEM(), Request: csr, Signature: []byte("x")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("POST", pathJoin, good)
	f.Add("POST", pathExpired, proof)
	f.Add("POST", pathJoin, []byte(`{"Token":"SWMTKN-1--","Addr":"[::1]:0"}`))
	f.Add("GET", pathAPI+"/../join", []byte{})
	f.Add("POST", pathLeave, []byte("null"))
	f.Fuzz(func(t *testing.T, method, path string, body []byte) {
		r, err := http.NewRequest(method, "https://cluster", bytes.NewReader(body))
		if err != nil {
			return
		}
		r.URL.Path, r.TLS = path, &tls.ConnectionState{}
		w := httptest.NewRecorder()
		srv.Handler.ServeHTTP(w, r.WithContext(withVisit(context.Background(), nil)))
		if w.Code < 300 {
			t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
		for n := range m.store.View().Nodes.All() {
			t.Fatalf("%s became a node", n.ID)
		}
	})
}
