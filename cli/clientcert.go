package cli

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"time"

	"shoal/cli/flags"
	"shoal/internal/api"
)

// The files of a client of the API, named as Docker's client looks for them.
const (
	caFile   = "ca.pem"
	certFile = "cert.pem"
	keyFile  = "key.pem"
)

func (s *session) clientCertCommand() leaf {
	return leaf{
		name: "client-cert", usage: "Make a certificate to use the API over the network with", arity: none, run: s.clientCert,
		flags: flags.Set{
			flags.Duration("expiry", "How long it is good for (s|m|h)").WithDefault("2160h0m0s"),
			flags.Text("name", "", "What to call its holder in the daemons' logs").WithDefault("USER@HOST"),
			flags.Text("out", "o", "Directory to write "+caFile+", "+certFile+" and "+keyFile+" to").WithDefault(`"shoal-client"`),
		},
	}
}

func (s *session) clientCert(ctx context.Context, in input) error {
	dir := in.Text("out")
	if dir == "" {
		dir = "shoal-client"
	}
	dir, err := filepath.Abs(dir) // for the commands that are printed
	if err != nil {
		return err
	}
	for _, name := range []string{caFile, certFile, keyFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s exists already: remove it, or write elsewhere with --out", filepath.Join(dir, name))
		}
	}
	request, key, err := certRequest()
	if err != nil {
		return err
	}
	req := api.ClientCertRequest{Request: string(request), Name: in.Text("name"), Expiry: flags.Get[time.Duration](in.Set, "expiry")}
	if req.Name == "" {
		req.Name = whoami()
	}
	var cert api.ClientCert
	if err := s.ask(ctx, http.MethodPost, "/shoal/client-cert", req, &cert); err != nil {
		return err
	}
	var about struct{ Shoal struct{ APIAddr string } }
	if err := s.ask(ctx, http.MethodGet, "/info", nil, &about); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
		mode os.FileMode
	}{{keyFile, key, 0o600}, {caFile, []byte(cert.CA), 0o644}, {certFile, []byte(cert.Cert), 0o644}} {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.data, f.mode); err != nil {
			return err
		}
	}
	return s.showClientCert(dir, cert.Expires, about.Shoal.APIAddr)
}

func (s *session) showClientCert(dir string, expires time.Time, addr string) error {
	var p page
	p.line("Wrote %s, %s and %s to %s, good until %s.", caFile, certFile, keyFile, dir, expires.Format(time.RFC3339))
	p.line("Whoever has these files may do with the cluster what root may.")
	p.line("")
	if addr == "" {
		addr = "tcp://MANAGER:2376"
		p.line("The daemon asked has no address on the network: start those of managers with --api-addr tcp://0.0.0.0")
		p.line("(or SHOAL_API_ADDR), and put one's address in the place of MANAGER below.")
		p.line("")
	}
	p.line("To use the cluster with docker:")
	p.line("")
	p.line(`    docker context create shoal --docker "host=%s,ca=%s,cert=%s,key=%s"`, addr, filepath.Join(dir, caFile), filepath.Join(dir, certFile), filepath.Join(dir, keyFile))
	p.line("    docker --context shoal node ls")
	p.line("")
	p.line("and with shoal:")
	p.line("")
	p.line("    SHOAL_CERT_PATH=%s shoal --host %s node ls", dir, addr)
	return p.flush(s.out)
}

// certRequest makes a key, which stays here, and asks for a certificate for it.
func certRequest() (request, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, err
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), nil
}

// whoami names who asks, as far as that is known.
func whoami() string {
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return name + "@" + host
}
