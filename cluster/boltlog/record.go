package boltlog

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"

	"shoal/cluster/seal"
)

// formatVersion is raised when a file that this release writes could not be
// read by the one before.
const formatVersion = 2

// An entry is sealed for its index, so one that is intact but sits under
// another key, or in another node's file, is found out as well. What is sealed:
//
//	term 8 | type 1 | appended at, unix ns 8 | extensions' length 4 | data | extensions
const entryHeader = 8 + 1 + 8 + 4

func encodeEntry(k *seal.Key, e *raft.Log) []byte {
	b := make([]byte, entryHeader, entryHeader+len(e.Data)+len(e.Extensions))
	binary.BigEndian.PutUint64(b, e.Term)
	b[8] = byte(e.Type)
	if !e.AppendedAt.IsZero() {
		binary.BigEndian.PutUint64(b[9:], uint64(e.AppendedAt.UnixNano()))
	}
	binary.BigEndian.PutUint32(b[17:], uint32(len(e.Extensions)))
	b = append(append(b, e.Data...), e.Extensions...)
	return k.Seal(entryPlace(e.Index), b)
}

// decodeEntry keeps nothing of sealed, which may be mapped memory that goes away.
func decodeEntry(k *seal.Key, index uint64, sealed []byte, e *raft.Log) error {
	b, err := k.Open(entryPlace(index), sealed)
	if err != nil {
		return fmt.Errorf("entry %d: %w", index, err)
	}
	if len(b) < entryHeader || int64(binary.BigEndian.Uint32(b[17:])) > int64(len(b)-entryHeader) {
		return fmt.Errorf("entry %d: lengths do not add up", index)
	}
	*e = raft.Log{
		Index: index,
		Term:  binary.BigEndian.Uint64(b),
		Type:  raft.LogType(b[8]),
	}
	if ns := binary.BigEndian.Uint64(b[9:]); ns != 0 {
		e.AppendedAt = time.Unix(0, int64(ns))
	}
	body := b[entryHeader:]
	split := len(body) - int(binary.BigEndian.Uint32(b[17:]))
	e.Data = body[:split:split]
	if split < len(body) {
		e.Extensions = body[split:]
	}
	return nil
}

func entryPlace(index uint64) seal.Place { return seal.Place{Kind: seal.KindEntry, Index: index} }

// Everything else in the file is a small value under a name in one bucket. All
// are sealed but the stamp, which says with which key: it is behind
// crc32c(name, value).

func valuePlace(name string) seal.Place { return seal.Place{Kind: seal.KindValue, Name: name} }

func guardStamp(value []byte) []byte {
	b := make([]byte, 4, 4+len(value))
	b = append(b, value...)
	binary.BigEndian.PutUint32(b, stampSum(value))
	return b
}

func readStamp(b []byte) (stamp, error) {
	var s stamp
	if len(b) < 4 || binary.BigEndian.Uint32(b) != stampSum(b[4:]) {
		return s, fmt.Errorf("%s: checksum mismatch", stampKey)
	}
	if err := json.Unmarshal(b[4:], &s); err != nil {
		return s, fmt.Errorf("%s: %w", stampKey, err)
	}
	return s, nil
}

func stampSum(value []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum([]byte(stampKey), table), table, value)
}

// stamp says whose file it is, and which key opens it.
type stamp struct {
	Format    int
	ClusterID string
	NodeID    string
	KeyID     string
}

func stampOf(k *seal.Key) stamp {
	return stamp{Format: formatVersion, ClusterID: k.Owner().ClusterID, NodeID: k.Owner().NodeID, KeyID: k.ID()}
}

// stable holds all of raft's stable values (term, vote) in one record: values
// with a key each could go missing one by one, and "no vote cast" is a lie
// that raft would believe.
type stable map[string][]byte

// bounds are the first and last index in the log, both 0 when it is empty.
// Kept beside the entries, they tell a log that has lost its newest entries
// from a shorter one.
type bounds struct{ first, last uint64 }

func (b bounds) encode() []byte {
	out := binary.BigEndian.AppendUint64(nil, b.first)
	return binary.BigEndian.AppendUint64(out, b.last)
}

func decodeBounds(b []byte) (bounds, error) {
	if len(b) != 16 {
		return bounds{}, fmt.Errorf("%s: wrong length", boundsKey)
	}
	out := bounds{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
	if out.first > out.last || (out.first == 0) != (out.last == 0) {
		return bounds{}, fmt.Errorf("%s: %d to %d", boundsKey, out.first, out.last)
	}
	return out, nil
}

func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }
