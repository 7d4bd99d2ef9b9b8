package cli

import (
	"encoding/csv"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/docker/docker/api/types/swarm"
)

// subnet reads --default-addr-pool: subnets, with commas between them.
func subnet(value string) ([]string, error) {
	var pools []string
	for _, part := range strings.Split(value, ",") {
		_, network, err := net.ParseCIDR(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		pools = append(pools, network.String())
	}
	return pools, nil
}

// externalCA reads --external-ca: protocol=cfssl,url=https://...,cacert=FILE.
func externalCA(value string) (*swarm.ExternalCA, error) {
	parts, err := csv.NewReader(strings.NewReader(value)).Read()
	if err != nil {
		return nil, err
	}
	ca := &swarm.ExternalCA{Options: map[string]string{}}
	protocol := false
	for _, field := range parts {
		key, val, ok := strings.Cut(field, "=")
		if !ok {
			return nil, fmt.Errorf("invalid field '%s' must be a key=value pair", field)
		}
		switch strings.ToLower(key) {
		case "protocol":
			protocol = true
			if ca.Protocol = swarm.ExternalCAProtocol(strings.ToLower(val)); ca.Protocol != swarm.ExternalCAProtocolCFSSL {
				return nil, fmt.Errorf("unrecognized external CA protocol %s", val)
			}
		case "url":
			ca.URL = val
		case "cacert":
			cert, err := os.ReadFile(val)
			if err != nil {
				return nil, fmt.Errorf("unable to read CA cert for external CA: %w", err)
			}
			if block, _ := pem.Decode(cert); block == nil {
				return nil, errors.New("CA cert for external CA must be in PEM format")
			}
			ca.CACert = string(cert)
		default:
			ca.Options[key] = val
		}
	}
	if !protocol {
		return nil, errors.New("the external-ca option needs a protocol= parameter")
	}
	if ca.URL == "" {
		return nil, errors.New("the external-ca option needs a url= parameter")
	}
	return ca, nil
}

// suggestAddress tells how to go on when the server cannot choose an address.
func suggestAddress(err error) error {
	for _, clue := range []string{"could not choose an IP address to advertise", "could not find the system's IP address"} {
		if strings.Contains(err.Error(), clue) {
			return fmt.Errorf("%w - specify one with --advertise-addr", err)
		}
	}
	return err
}
