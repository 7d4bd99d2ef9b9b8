package ca

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"shoal/cluster/seal"
	"shoal/internal/atomicfile"
)

// The files in a node's tls directory.
const (
	caFile   = "ca.crt"
	certFile = "node.crt"
	keyFile  = "node.key"

	// nextKeyFile holds the key of a renewed certificate until that
	// certificate is in place. See Save.
	nextKeyFile = "node.key.next"
)

// Save writes a bundle so that a crash at any moment leaves a usable pair: the
// new key goes to a name of its own, then the certificate is replaced, then
// the key takes its final name. Load finishes what a crash interrupted.
//
// The key is sealed with the node's data key. A worker has none (nil), because
// nobody would be there to unlock it.
func Save(dir string, b Bundle, key *seal.Key) error {
	if _, err := parseBundle(b); err != nil {
		return fmt.Errorf("save key material in %s: %w", dir, err)
	}
	if key != nil {
		b.KeyPEM = pem.EncodeToMemory(&pem.Block{Type: sealedKeyBlock, Bytes: key.Seal(keyPlace, b.KeyPEM)})
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make tls directory: %w", err)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{caFile, b.CAPEM}, {nextKeyFile, b.KeyPEM}, {certFile, b.CertPEM}} {
		if err := atomicfile.Write(filepath.Join(dir, f.name), f.data, 0o600); err != nil {
			return fmt.Errorf("save %s: %w", f.name, err)
		}
	}
	return adoptNextKey(dir)
}

// sealedKeyBlock is the PEM type of a node key that is sealed.
const sealedKeyBlock = "SHOAL SEALED PRIVATE KEY"

// keyPlace is the same for the key in waiting, which takes the other's name.
var keyPlace = seal.Place{Kind: seal.KindNodeKey}

// ErrKeySealed says that it takes the data key to load a node's key.
var ErrKeySealed = errdefs.ErrFailedPrecondition.WithMessage("the node key is sealed")

// openKey gives the PEM of a key file's content.
func openKey(data []byte, key *seal.Key) ([]byte, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != sealedKeyBlock {
		return data, nil
	}
	if key == nil {
		return nil, ErrKeySealed
	}
	plain, err := key.Open(keyPlace, block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("open the node key: %w", err)
	}
	return plain, nil
}

func adoptNextKey(dir string) error {
	if err := os.Rename(filepath.Join(dir, nextKeyFile), filepath.Join(dir, keyFile)); err != nil {
		return fmt.Errorf("put the new node key in place: %w", err)
	}
	return atomicfile.SyncDir(dir)
}

// Load reads what Save wrote. Missing files are errdefs.ErrNotFound: the node
// has not joined a cluster. Anything else that is wrong with them is an error
// that names the directory and says what to do. Without the data key that a
// sealed key needs, the error is ErrKeySealed.
func Load(dir string, key *seal.Key) (*Credentials, error) {
	var b Bundle
	for _, f := range []struct {
		name string
		data *[]byte
	}{{caFile, &b.CAPEM}, {certFile, &b.CertPEM}} {
		data, err := os.ReadFile(filepath.Join(dir, f.name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("no %s in %s: %w", f.name, dir, errdefs.ErrNotFound)
		}
		if err != nil {
			return nil, fmt.Errorf("load key material: %w", err)
		}
		*f.data = data
	}

	// The key that belongs to the certificate is the waiting one if a crash
	// came between the two renames, and the ordinary one otherwise.
	var firstErr error
	for _, name := range []string{keyFile, nextKeyFile} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("load key material: %w", err)
		}
		b.KeyPEM, err = openKey(data, key)
		if err != nil {
			firstErr = errors.Join(firstErr, err)
			continue
		}
		creds, err := NewCredentials(b)
		if err != nil {
			firstErr = errors.Join(firstErr, err)
			continue
		}
		if name == nextKeyFile {
			if err := adoptNextKey(dir); err != nil {
				return nil, err
			}
		}
		return creds, nil
	}
	if firstErr == nil {
		return nil, fmt.Errorf("no %s in %s: %w", keyFile, dir, errdefs.ErrNotFound)
	}
	if errors.Is(firstErr, ErrKeySealed) {
		return nil, firstErr
	}
	return nil, fmt.Errorf("key material in %s is damaged (%w); move the data directory away and join again, or restore a backup", dir, firstErr)
}

// Whose reads from the certificate, which is never sealed, which node the key
// material in a directory is of.
func Whose(dir string) (Identity, error) {
	data, err := os.ReadFile(filepath.Join(dir, certFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Identity{}, fmt.Errorf("no %s in %s: %w", certFile, dir, errdefs.ErrNotFound)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("load key material: %w", err)
	}
	chain, err := ParseCertificates(data)
	var id Identity
	if err == nil {
		id, err = CertificateIdentity(chain[0])
	}
	if err != nil {
		return Identity{}, fmt.Errorf("key material in %s is damaged (%w); move the data directory away and join again, or restore a backup", dir, err)
	}
	return id, nil
}
