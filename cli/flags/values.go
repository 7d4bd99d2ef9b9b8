package flags

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/go-units"
)

// Uint makes a flag for a count.
func Uint(long, usage string) *Flag {
	return Var(long, "", "uint", usage, func(s string) (uint64, error) { return strconv.ParseUint(s, 0, 64) })
}

// Int makes a flag for a whole number.
func Int(long, usage string) *Flag {
	return Var(long, "", "int", usage, func(s string) (int64, error) { return strconv.ParseInt(s, 0, 64) })
}

// Float makes a flag for a ratio.
func Float(long, usage string) *Flag {
	return Var(long, "", "float", usage, func(s string) (float32, error) {
		v, err := strconv.ParseFloat(s, 32)
		return float32(v), err
	})
}

// Duration makes a flag for a time span that cannot be negative.
func Duration(long, usage string) *Flag {
	return Var(long, "", "duration", usage, func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		if err == nil && d < 0 {
			err = errors.New("duration cannot be negative")
		}
		return d, err
	})
}

// Bytes makes a flag for a size such as 64m.
func Bytes(long, usage string) *Flag {
	return Var(long, "", "bytes", usage, units.RAMInBytes)
}

// CPUs makes a flag for a number of processors, in billionths.
func CPUs(long, usage string) *Flag {
	return Var(long, "", "decimal", usage, func(s string) (int64, error) {
		cpus, ok := new(big.Rat).SetString(s)
		if !ok {
			return 0, fmt.Errorf("failed to parse %v as a rational number", s)
		}
		nano := cpus.Mul(cpus, big.NewRat(1e9, 1))
		if !nano.IsInt() {
			return 0, errors.New("value is too precise")
		}
		return nano.Num().Int64(), nil
	})
}

// Filter is one condition of --filter.
type Filter struct{ Key, Value string }

// Filters makes the --filter flag.
func Filters(usage string) *Flag {
	return Many("filter", "f", "filter", usage, func(s string) (Filter, error) {
		key, value, ok := strings.Cut(s, "=")
		if !ok {
			return Filter{}, errors.New("bad format of filter (expected name=value)")
		}
		return Filter{strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)}, nil
	})
}

// Filters returns the conditions of --filter.
func (s Set) Filters() filters.Args {
	args := filters.NewArgs()
	for _, f := range Get[[]Filter](s, "filter") {
		args.Add(f.Key, f.Value)
	}
	return args
}
