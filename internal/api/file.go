package api

import (
	"path"

	"github.com/docker/docker/api/types/swarm"
)

// File is a secret or a config: data that becomes a file in the containers of
// the services that use it. Its data never changes. Other data is another file
// of the same name, the next version of it.
type File struct {
	Meta
	Of   Kind             // KindSecret or KindConfig
	Spec swarm.ConfigSpec // without its data: that is in Pieces
	// Number counts the versions of a name, from 1.
	Number uint64
	// Retired is set on a file that its name does not stand for any more: there
	// is a newer version, or it was removed. It is kept for as long as a revision
	// uses it, which may be gone back to.
	Retired bool `json:",omitempty"`
	Size    int
	Pieces  []string // IDs, in order
}

// Piece is a part of a file's data. No object holds all of it: an object has to
// fit into one raft entry, and a file need not. Whoever shows a File can not show
// its data by mistake.
type Piece struct {
	Meta
	FileID string
	Data   []byte
}

// PieceSize is how much data a piece holds. Encoded, it is half of what fits into
// one raft entry.
const PieceSize = 192 << 10

// Split cuts a file's data into pieces, and notes them in the file.
func (f *File) Split(data []byte) []*Piece {
	var pieces []*Piece
	f.Size, f.Pieces = len(data), nil
	for len(data) > 0 {
		n := min(len(data), PieceSize)
		p := &Piece{Meta: Meta{ID: NewID()}, FileID: f.ID, Data: data[:n]}
		pieces, f.Pieces, data = append(pieces, p), append(f.Pieces, p.ID), data[n:]
	}
	return pieces
}

// Join puts a file's data together again; false if a piece is missing.
func (f *File) Join(piece func(id string) (*Piece, bool)) ([]byte, bool) {
	data := make([]byte, 0, f.Size)
	for _, id := range f.Pieces {
		p, ok := piece(id)
		if !ok {
			return nil, false
		}
		data = append(data, p.Data...)
	}
	return data, len(data) == f.Size
}

// FileIDs gives the IDs of the secrets and configs that a container's spec uses.
func FileIDs(c *swarm.ContainerSpec) (secrets, configs []string) {
	if c == nil {
		return nil, nil
	}
	for _, r := range c.Secrets {
		if r != nil {
			secrets = append(secrets, r.SecretID)
		}
	}
	for _, r := range c.Configs {
		if r != nil {
			configs = append(configs, r.ConfigID)
		}
	}
	return secrets, configs
}

// Kind implements Object.
func (f *File) Kind() Kind { return f.Of }

// Kind implements Object.
func (*Piece) Kind() Kind { return KindPiece }

// SecretPath is where a secret is in a container, by the target of its reference.
func SecretPath(target string) string {
	if path.IsAbs(target) {
		return path.Clean(target)
	}
	return path.Join("/run/secrets", target)
}

// ConfigPath is where a config is.
func ConfigPath(target string) string { return path.Join("/", target) }
