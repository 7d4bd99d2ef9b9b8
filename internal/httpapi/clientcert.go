package httpapi

import (
	"net/http"
	"time"

	"go.uber.org/zap"

	"shoal/internal/api"
)

// clientCert lets one more client use the API over the network.
func (s *server) clientCert(w http.ResponseWriter, r *request) error {
	var req api.ClientCertRequest
	if err := readJSON(w, r.Request, &req); err != nil {
		return err
	}
	cert, err := r.control.SignClient([]byte(req.Request), req.Name, req.Expiry)
	if err != nil {
		return err
	}
	s.log.Info("a client may use the API over the network", zap.String("client", cert.Name), zap.Time("until", cert.Expires.Truncate(time.Second)))
	return writeJSON(w, http.StatusCreated, api.ClientCert{Cert: string(cert.Cert), CA: string(cert.Roots), Expires: cert.Expires})
}
