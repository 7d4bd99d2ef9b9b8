package doctor

import (
	"fmt"
	"time"
)

// oldKey is how old a key gets when it does not change: daily, or when a node
// that is down has been waited for.
const oldKey = 48 * time.Hour

// encryption judges what travels on encrypted networks. Nodes that have nothing
// to say to each other are silent, and that is in order.
func (f *findings) encryption(e *Encryption, now time.Time) {
	if e == nil {
		return
	}
	const key = "this node's key"
	switch {
	case e.Error != "":
		f.fail(CheckEncryption, "WireGuard", "tasks on encrypted networks are cut off from other nodes: "+oneLine(e.Error),
			"remove the cause; nothing is sent in the clear meanwhile")
		return
	case e.KeySince.IsZero():
		f.warn(CheckEncryption, key, "the managers do not know it yet", "run this again in a moment; if it stays, see reachability above")
	case now.Sub(e.KeySince) > oldKey:
		f.warn(CheckEncryption, key, "is "+span(now.Sub(e.KeySince))+" old, and should have changed", "see that every node is up, or remove those that do not come back; the daemon's log says more")
	default:
		f.ok(CheckEncryption, key, "is "+span(now.Sub(e.KeySince))+" old")
	}
	silent := 0
	for _, o := range e.Others {
		switch {
		case o.NoKey != "":
			f.warn(CheckEncryption, o.Name, "can not encrypt: "+oneLine(o.NoKey), "it gets no tasks of encrypted networks until that is mended there")
		case o.Unsaid:
			f.fail(CheckEncryption, o.Name, "was sent something and has never answered", "see that the port of WireGuard is open both ways (reachability, above)")
		case o.Last.IsZero():
			silent++
		default:
			f.ok(CheckEncryption, o.Name, "last agreed on a key "+span(now.Sub(o.Last))+" ago")
		}
	}
	if silent > 0 {
		f.ok(CheckEncryption, fmt.Sprintf("%d of %d nodes", silent, len(e.Others)), "there was nothing to tell them yet")
	}
}
