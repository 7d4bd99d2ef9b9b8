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

// What is wrong with a value is said in the user's words: the parsers' own name
// functions of Go.
var (
	errUint     = errors.New("must be a whole number, 0 or more")
	errInt      = errors.New("must be a whole number")
	errFloat    = errors.New("must be a number, such as 0.25")
	errBool     = errors.New("must be true or false")
	errTooLarge = errors.New("is too large a number")
	errUnit     = errors.New("has no unit: write 5s for five seconds, or ms, m or h")
	errDuration = errors.New("must be a time with a unit, such as 500ms, 30s or 1h30m")
	errNegative = errors.New("cannot be negative")
	errBytes    = errors.New("must be a size, such as 512m or 2g (units b, k, m, g, t)")
	errCPUs     = errors.New("must be a number of CPUs, such as 0.5")
)

// number says why a number can not be read.
func number[T any](v T, err, otherwise error) (T, error) {
	if errors.Is(err, strconv.ErrRange) {
		return v, errTooLarge
	}
	if err != nil {
		return v, otherwise
	}
	return v, nil
}

// Uint makes a flag for a count.
func Uint(long, usage string) *Flag {
	return Var(long, "", "uint", usage, func(s string) (uint64, error) {
		v, err := strconv.ParseUint(s, 0, 64)
		return number(v, err, errUint)
	})
}

// Int makes a flag for a whole number.
func Int(long, usage string) *Flag {
	return Var(long, "", "int", usage, func(s string) (int64, error) {
		v, err := strconv.ParseInt(s, 0, 64)
		return number(v, err, errInt)
	})
}

// Float makes a flag for a ratio.
func Float(long, usage string) *Flag {
	return Var(long, "", "float", usage, func(s string) (float32, error) {
		v, err := strconv.ParseFloat(s, 32)
		return number(float32(v), err, errFloat)
	})
}

// parseBool reads the value of a switch.
func parseBool(s string) (bool, error) {
	v, err := strconv.ParseBool(s)
	return number(v, err, errBool)
}

// Duration makes a flag for a time span that cannot be negative.
func Duration(long, usage string) *Flag {
	return Var(long, "", "duration", usage, func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		_, bare := strconv.ParseFloat(s, 64)
		switch {
		case err == nil && d < 0:
			return 0, fmt.Errorf("duration %w", errNegative)
		case err == nil:
			return d, nil
		case bare == nil:
			return 0, errUnit
		}
		return 0, errDuration
	})
}

// Bytes makes a flag for a size such as 64m.
func Bytes(long, usage string) *Flag {
	return Var(long, "", "bytes", usage, func(s string) (int64, error) {
		v, err := units.RAMInBytes(s)
		switch {
		case err != nil && strings.HasPrefix(strings.TrimSpace(s), "-"):
			return 0, fmt.Errorf("size %w", errNegative)
		case err != nil:
			return 0, errBytes
		}
		return v, nil
	})
}

// CPUs makes a flag for a number of processors, in billionths.
func CPUs(long, usage string) *Flag {
	return Var(long, "", "decimal", usage, func(s string) (int64, error) {
		cpus, ok := new(big.Rat).SetString(s)
		if !ok {
			return 0, errCPUs
		}
		if cpus.Sign() < 0 {
			return 0, fmt.Errorf("number of CPUs %w", errNegative)
		}
		nano := cpus.Mul(cpus, big.NewRat(1e9, 1))
		if !nano.IsInt() {
			return 0, errors.New("value is too precise: at most nine digits after the point")
		}
		if !nano.Num().IsInt64() {
			return 0, errTooLarge
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
