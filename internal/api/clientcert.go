package api

import "time"

// ClientCertRequest asks for a certificate of a client of the API.
type ClientCertRequest struct {
	Request string        // certificate signing request, PEM
	Name    string        // what people call the client
	Expiry  time.Duration // 0 stands for the default
}

// ClientCert is the answer to it, in PEM.
type ClientCert struct {
	Cert    string
	CA      string
	Expires time.Time
}
