package netkit

import (
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables"
)

// read loads the table as the kernel has it; live is nil when there is none.
// Several dumps make one picture only if nothing changed meanwhile, and the
// library does not pass on the kernel's word that a dump was interrupted; the
// ruleset's generation tells both.
func (t *Table) read() error {
	t.live = nil
	if err := t.open(); err != nil {
		return err
	}
	before, err := generation(t.sock.raw)
	if err != nil {
		return err
	}
	for range dumpAttempts {
		got, err := t.observe()
		after, genErr := generation(t.sock.raw)
		if genErr != nil {
			t.close()
			return genErr
		}
		if before == after {
			if err != nil {
				t.close()
				return fmt.Errorf("read nftables table %s: %w", t.name, err)
			}
			t.live = got
			return nil
		}
		before = after
	}
	return fmt.Errorf("read nftables table %s: the ruleset changes faster than it can be read", t.name)
}

func (t *Table) observe() (*observed, error) {
	table, conn := t.kernel(), t.sock.nft
	if there, err := t.exists(); err != nil || !there {
		return nil, err
	}
	sets, err := conn.GetSets(table)
	if err != nil {
		return nil, err
	}
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return nil, err
	}
	rules, err := dumpRules(t.sock.raw, t.name)
	if err != nil {
		return nil, err
	}
	o := &observed{chains: map[string]chainShape{}, sets: map[string]setShape{}, elems: map[string]Elements{}}
	for _, s := range sets {
		o.sets[s.Name] = setShape{isMap: s.IsMap, interval: s.Interval, concat: s.Concatenation}
		if o.elems[s.Name], err = dumpElements(t.sock.raw, t.name, s.Name); err != nil {
			return nil, err
		}
	}
	for _, c := range chains {
		if c.Table.Name != t.name {
			continue
		}
		cs := chainShape{hook: -1}
		if c.Hooknum != nil {
			cs = chainShape{hook: int(*c.Hooknum), priority: int(*c.Priority), typ: c.Type}
			if c.Policy != nil && *c.Policy != nftables.ChainPolicyAccept {
				cs.rules = "policy drop\n"
			}
		}
		cs.rules += rules[c.Name]
		o.chains[c.Name] = cs
	}
	return o, nil
}

// spotCheck asks the kernel for the very elements of a change.
func (t *Table) spotCheck(set string, e *elementChange, want Elements) error {
	for _, el := range e.add {
		got, err := getElement(t.sock.raw, t.name, set, el)
		if err != nil {
			return fmt.Errorf("element %x: %w", el.Key, err)
		}
		if got.Data != el.Data || got.Goto != el.Goto {
			return fmt.Errorf("element %x is another than was written", el.Key)
		}
	}
	for _, el := range e.del {
		if _, kept := want[ElementID{el.Key, el.End}]; kept {
			continue
		}
		if _, err := getElement(t.sock.raw, t.name, set, el); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("element %x is still there (%v)", el.Key, err)
		}
	}
	return nil
}
