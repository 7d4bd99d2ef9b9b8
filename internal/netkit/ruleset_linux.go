package netkit

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Ruleset is the wanted content of one nftables table of family ip.
type Ruleset struct {
	Table    string
	Timeouts []Timeouts // that rules use
	Sets     []Set
	Chains   []Chain // a chain comes after those that its rules jump to
}

// Set is a named set, or a map where Data is given. Maps of verdicts have
// nftables.TypeVerdict there.
type Set struct {
	Name      string
	Key, Data nftables.SetDatatype
	Interval  bool
	Concat    bool // intervals over several fields at once
	Elements  Elements
}

// Element is one entry of a Set, in the kernel's bytes. All of it is
// comparable, which is what makes a difference cheap to find.
type Element struct {
	Key    string
	KeyEnd string // last key of the range, in Concat sets
	End    bool   // first key after a range, in Interval sets
	Data   string
	Goto   string // chain, in maps of verdicts
}

// Elements are the entries of a set by their identity.
type Elements map[ElementID]Element

// ElementID tells entries of one set apart. The end of one range and the start
// of the next share a key.
type ElementID struct {
	Key string
	End bool
}

// Add puts an entry in, in place of one with the same key.
func (e Elements) Add(el Element) { e[ElementID{el.Key, el.End}] = el }

// Patch is a change to a Ruleset: elements to delete and to add by the name of
// their set, and chains to add that are merely jumped to. An element that is in
// both stays; one whose value changes is in both with either value.
type Patch struct {
	Del, Add map[string]Elements
	Chains   []Chain
}

// Chain is one chain with its rules. Without a Hook it is only jumped to.
type Chain struct {
	Name     string
	Type     nftables.ChainType
	Hook     *nftables.ChainHook
	Priority nftables.ChainPriority
	Rules    []Rule
}

// Rule is one rule and why it is there, which `nft list` shows as its comment.
type Rule struct {
	Why   string
	Exprs []expr.Any
	// Raw is one more expression, at the end, in netlink's form: one that the
	// library can not encode. Such a rule is alone in its chain, and follows
	// within a moment in a transaction of its own.
	Raw []byte
}

// comment names the rule and carries a digest of its expressions: enough to
// see on reading back that a rule is the very one that was written, without
// decoding it.
func (r Rule) comment() (string, error) {
	h := sha256.New()
	for _, e := range r.Exprs {
		b, err := expr.Marshal(byte(nftables.TableFamilyIPv4), e)
		if err != nil {
			return "", fmt.Errorf("encode rule %q: %w", r.Why, err)
		}
		h.Write(b)
	}
	h.Write(r.Raw)
	return r.Why + " #" + hex.EncodeToString(h.Sum(nil)[:4]), nil
}

// observed is a Ruleset in a form that can also be read from the kernel.
type observed struct {
	chains map[string]chainShape
	order  []string // of chains, as wanted; nil when read from the kernel
	sets   map[string]setShape
	elems  map[string]Elements
}

type chainShape struct {
	hook     int // -1 without
	priority int
	typ      nftables.ChainType
	rules    string // comments joined
}

type setShape struct {
	isMap, interval, concat bool
}

func shape(r *Ruleset) (*observed, error) {
	o := &observed{chains: map[string]chainShape{}, sets: map[string]setShape{}, elems: map[string]Elements{}}
	for _, s := range r.Sets {
		o.sets[s.Name] = setShape{isMap: s.isMap(), interval: s.Interval, concat: s.Concat}
		o.elems[s.Name] = s.Elements
	}
	for _, c := range r.Chains {
		cs := chainShape{hook: -1}
		if c.Hook != nil {
			cs = chainShape{hook: int(*c.Hook), priority: int(c.Priority), typ: c.Type}
		}
		for _, rule := range c.Rules {
			text, err := rule.comment()
			if err != nil {
				return nil, err
			}
			cs.rules += text + "\n"
		}
		o.chains[c.Name] = cs
		o.order = append(o.order, c.Name)
	}
	return o, nil
}

func (s Set) isMap() bool { return s.Data.Name != "" }

// change is what takes a table from one content to another.
type change struct {
	rebuild  bool // the frame differs: write the whole table anew
	add, del []string
	elems    map[string]*elementChange
}

type elementChange struct{ add, del []Element }

func (c *change) empty() bool {
	return !c.rebuild && len(c.add) == 0 && len(c.del) == 0 && len(c.elems) == 0
}

func (c *change) size() (n int) {
	for _, e := range c.elems {
		n += len(e.add) + len(e.del)
	}
	return n
}

// diff decides how to get from have to want. Only elements and chains that are
// merely jumped to can change in place; anything else is so rare that the
// whole table is replaced.
func diff(have, want *observed) *change {
	if have == nil || !maps.Equal(have.sets, want.sets) {
		return &change{rebuild: true}
	}
	c := &change{elems: map[string]*elementChange{}}
	for _, name := range want.order {
		w := want.chains[name]
		h, ok := have.chains[name]
		if !ok && w.hook < 0 {
			c.add = append(c.add, name)
		} else if h != w {
			return &change{rebuild: true}
		}
	}
	for name, h := range have.chains {
		if _, ok := want.chains[name]; !ok {
			if h.hook >= 0 {
				return &change{rebuild: true}
			}
			c.del = append(c.del, name)
		}
	}
	slices.Sort(c.del)
	for name, w := range want.elems {
		if e := diffElements(have.elems[name], w); e != nil {
			c.elems[name] = e
		}
	}
	return c
}

func diffElements(have, want Elements) *elementChange {
	var c elementChange
	for id, h := range have {
		if w, ok := want[id]; !ok || w != h {
			c.del = append(c.del, h)
		}
	}
	for id, w := range want {
		if h, ok := have[id]; !ok || w != h {
			c.add = append(c.add, w)
		}
	}
	if len(c.add)+len(c.del) == 0 {
		return nil
	}
	return &c
}
