package netkit

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	// chunk is how many elements go into one message. Attributes have 16-bit
	// lengths: the kernel silently keeps only part of a longer list.
	chunk = 500
	// sockBuffer holds a whole batch and its acknowledgements, one per
	// message; with the default size they are lost (ENOBUFS) beyond some 200.
	// The kernel charges only what is in use.
	sockBuffer = 64 << 20
	// spotCheckMax is the largest change that is verified element by element;
	// beyond, reading the whole table back is cheaper.
	spotCheckMax = 128
)

// Table keeps one nftables table equal to a Ruleset. Every write is one
// transaction, so that no packet ever meets a half-written table, and is read
// back afterwards: an acknowledged write is not always a complete one.
type Table struct {
	name string
	log  *zap.Logger

	mu   sync.Mutex
	want *Ruleset
	// live is what the kernel is known to have: nil when that is unknown, else
	// as read, or the very shape of want, with the same maps.
	live *observed
	sock *sockets
}

// NewTable names a table; nothing is read or written yet.
func NewTable(name string, log *zap.Logger) *Table {
	return &Table{name: name, log: log}
}

// Set makes the kernel's table equal to want, which is the Table's from then
// on. What is there already is kept: a daemon that restarts finds its table
// and changes nothing.
func (t *Table) Set(want *Ruleset) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.want = want
	return t.converge()
}

// ErrTaken says that a patch would replace an element that it does not own.
var ErrTaken = errors.New("element is in use")

// Patch changes what was Set last, at a cost that depends on the change alone.
// ErrTaken means that nothing was changed.
func (t *Table) Patch(p Patch) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.want == nil {
		return fmt.Errorf("patch nftables table %s: it was never set", t.name)
	}
	for _, s := range t.want.Sets {
		for id := range p.Add[s.Name] {
			_, used := s.Elements[id]
			if _, own := p.Del[s.Name][id]; used && !own {
				return ErrTaken
			}
		}
	}
	c := &change{elems: map[string]*elementChange{}}
	for _, ch := range p.Chains {
		t.want.Chains = append(t.want.Chains, ch)
		c.add = append(c.add, ch.Name)
	}
	for i := range t.want.Sets {
		s := &t.want.Sets[i]
		del, add := p.Del[s.Name], p.Add[s.Name]
		if e := diffElements(del, add); e != nil {
			c.elems[s.Name] = e
		}
		for id := range del {
			delete(s.Elements, id)
		}
		maps.Copy(s.Elements, add)
	}
	if c.empty() || t.live == nil {
		return t.converge()
	}
	want, err := shape(t.want)
	if err != nil {
		return err
	}
	if err := t.write(c, want); err != nil {
		return t.startOver(want, err)
	}
	return nil
}

// Verify reads the table back and repairs it when somebody altered it. It
// tells whether it had to.
func (t *Table) Verify() (repaired bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.want == nil {
		return false, nil
	}
	if err := t.read(); err != nil {
		return false, err
	}
	w, err := shape(t.want)
	if err != nil {
		return false, err
	}
	if diff(t.live, w).empty() {
		return false, nil
	}
	return true, t.converge()
}

// Differs reads the table back and says how it differs from what was set, or "".
// It repairs nothing.
func (t *Table) Differs() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.want == nil {
		return "", nil
	}
	if err := t.read(); err != nil {
		return "", err
	}
	want, err := shape(t.want)
	if err != nil {
		return "", err
	}
	switch c := diff(t.live, want); {
	case c.empty():
		return "", nil
	case c.rebuild:
		return fmt.Sprintf("nftables table %s is missing, or its rules are not ours", t.name), nil
	default:
		return fmt.Sprintf("nftables table %s: %d chains and %d elements differ", t.name, len(c.add)+len(c.del), c.size()), nil
	}
}

// Exists tells whether the kernel has a table of the name, whatever is in it.
func (t *Table) Exists() (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.open(); err != nil {
		return false, err
	}
	return t.exists()
}

func (t *Table) exists() (bool, error) {
	tables, err := t.sock.nft.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return false, fmt.Errorf("list nftables tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(k *nftables.Table) bool { return k.Name == t.name }), nil
}

// Clear removes the table and forgets what was wanted.
func (t *Table) Clear() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.want, t.live = nil, nil
	if err := t.open(); err != nil {
		return err
	}
	defer t.close()
	c := t.sock.nft
	// Adding first makes deleting work whether or not it exists.
	c.DelTable(c.AddTable(t.kernel()))
	if err := c.Flush(); err != nil {
		return fmt.Errorf("remove nftables table %s: %w", t.name, err)
	}
	return nil
}

func (t *Table) kernel() *nftables.Table {
	return &nftables.Table{Name: t.name, Family: nftables.TableFamilyIPv4}
}

// converge writes the difference between live and want and verifies the
// result; when that fails once, it starts over with the whole table.
func (t *Table) converge() error {
	want, err := shape(t.want)
	if err != nil {
		return err
	}
	if t.live == nil {
		if err := t.read(); err != nil {
			return err
		}
	}
	c := diff(t.live, want)
	if c.empty() {
		t.live = want
		return nil
	}
	if err := t.write(c, want); err != nil {
		return t.startOver(want, err)
	}
	return nil
}

// startOver writes the whole table after a write of less, or of as much, went
// wrong: others may have written between our reading and our writing.
func (t *Table) startOver(want *observed, cause error) error {
	t.log.Warn("table is not as it was left, writing it anew", zap.String("table", t.name), zap.Error(cause))
	if err := t.write(&change{rebuild: true}, want); err != nil {
		t.live = nil
		return fmt.Errorf("write nftables table %s: %w", t.name, err)
	}
	return nil
}

func (t *Table) write(c *change, want *observed) error {
	if err := t.open(); err != nil {
		return err
	}
	conn := t.sock.nft
	err := t.queue(conn, c)
	if err == nil {
		err = conn.Flush()
	}
	if err != nil {
		t.close() // it may hold answers that nobody reads any more
		return err
	}
	t.live = nil
	for _, ch := range t.want.Chains {
		if !c.rebuild && !slices.Contains(c.add, ch.Name) {
			continue
		}
		for _, r := range ch.Rules {
			if r.Raw == nil {
				continue
			}
			if err := addRaw(t.sock.raw, t.name, ch.Name, r); err != nil {
				t.close()
				return err
			}
		}
	}
	if c.rebuild || c.size() > spotCheckMax {
		if err := t.read(); err != nil {
			return err
		}
		if left := diff(t.live, want); !left.empty() {
			return fmt.Errorf("read back: %d elements differ, frame differs: %t", left.size(), left.rebuild)
		}
		t.live = want
		return nil
	}
	for name, e := range c.elems {
		if err := t.spotCheck(name, e, want.elems[name]); err != nil {
			t.close()
			return fmt.Errorf("read back %s: %w", name, err)
		}
	}
	t.live = want
	return nil
}

// queue puts a change into one batch, in the order in which the kernel can
// resolve the references between chains, sets and rules.
func (t *Table) queue(conn *nftables.Conn, c *change) error {
	table := t.kernel()
	if c.rebuild {
		conn.DelTable(conn.AddTable(table))
		conn.AddTable(table)
		for _, timeouts := range t.want.Timeouts {
			conn.AddObj(timeouts.object(table))
		}
	}
	sets := map[string]*nftables.Set{}
	for i, s := range t.want.Sets {
		ks := &nftables.Set{
			Table: table, ID: uint32(i + 1), Name: s.Name, IsMap: s.isMap(), Interval: s.Interval, Concatenation: s.Concat,
			KeyType: s.Key, DataType: s.Data,
		}
		sets[s.Name] = ks
		if c.rebuild {
			if err := conn.AddSet(ks, nil); err != nil {
				return err
			}
		}
	}
	var added []Chain
	for _, ch := range t.want.Chains {
		if c.rebuild || slices.Contains(c.add, ch.Name) {
			conn.AddChain(kernelChain(table, ch))
			added = append(added, ch)
		}
	}
	for _, ch := range added {
		for _, r := range ch.Rules {
			if r.Raw != nil {
				continue // write adds it
			}
			text, err := r.comment()
			if err != nil {
				return err
			}
			conn.AddRule(&nftables.Rule{
				Table: table, Chain: kernelChain(table, ch), Exprs: r.Exprs,
				UserData: userdata.AppendString(nil, userdata.TypeComment, text),
			})
		}
	}
	for _, s := range t.want.Sets {
		e := c.elems[s.Name]
		if c.rebuild {
			e = diffElements(nil, s.Elements)
		}
		if e == nil {
			continue
		}
		if s.Interval {
			// The kernel takes a range by its start and then its end; in any
			// other order it sees overlaps that are not there.
			slices.SortFunc(e.del, byKey)
			slices.SortFunc(e.add, byKey)
		}
		for part := range slices.Chunk(e.del, chunk) {
			if err := conn.SetDeleteElements(sets[s.Name], kernelElements(part)); err != nil {
				return err
			}
		}
		for part := range slices.Chunk(e.add, chunk) {
			if err := conn.SetAddElements(sets[s.Name], kernelElements(part)); err != nil {
				return err
			}
		}
	}
	for _, name := range c.del {
		conn.DelChain(&nftables.Chain{Table: table, Name: name})
	}
	return nil
}

// byKey puts the end of a range before the start of the next.
func byKey(a, b Element) int {
	if c := strings.Compare(a.Key, b.Key); c != 0 || a.End == b.End {
		return c
	}
	if a.End {
		return -1
	}
	return 1
}

func kernelChain(table *nftables.Table, c Chain) *nftables.Chain {
	k := &nftables.Chain{Table: table, Name: c.Name}
	if c.Hook != nil {
		k.Type, k.Hooknum, k.Priority = c.Type, c.Hook, &c.Priority
		accept := nftables.ChainPolicyAccept
		k.Policy = &accept
	}
	return k
}

func kernelElements(in []Element) []nftables.SetElement {
	out := make([]nftables.SetElement, 0, len(in))
	for _, e := range in {
		k := nftables.SetElement{Key: []byte(e.Key), IntervalEnd: e.End}
		if e.KeyEnd != "" {
			k.KeyEnd = []byte(e.KeyEnd)
		}
		if e.Data != "" {
			k.Val = []byte(e.Data)
		}
		if e.Goto != "" {
			k.VerdictData = &expr.Verdict{Kind: expr.VerdictGoto, Chain: e.Goto}
		}
		out = append(out, k)
	}
	return out
}

// sockets stay open between calls: closing one that changed the ruleset waits
// until the kernel has freed all that was replaced, some ten milliseconds.
type sockets struct {
	nft *nftables.Conn
	raw *netlink.Conn // for what the library can not do
}

func (t *Table) open() error {
	if t.sock != nil {
		return nil
	}
	raw, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	nft, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetReadBuffer(sockBuffer), c.SetWriteBuffer(sockBuffer))
	}))
	if err != nil {
		return errors.Join(fmt.Errorf("open nftables: %w", err), raw.Close())
	}
	t.sock = &sockets{nft: nft, raw: raw}
	return nil
}

func (t *Table) close() {
	if t.sock != nil {
		_, _ = t.sock.nft.CloseLasting(), t.sock.raw.Close()
		t.sock = nil
	}
}
