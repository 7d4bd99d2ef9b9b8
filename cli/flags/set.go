package flags

// Set is the flags of one command, with what the user gave.
type Set []*Flag

// Lookup finds a flag by its long name.
func (s Set) Lookup(long string) *Flag {
	for _, f := range s {
		if f.Long == long {
			return f
		}
	}
	return nil
}

func (s Set) short(name string) *Flag {
	for _, f := range s {
		if f.Short != "" && f.Short == name {
			return f
		}
	}
	return nil
}

// Changed reports whether the user gave the flag. A flag the command does not have was not given.
func (s Set) Changed(long string) bool {
	f := s.Lookup(long)
	return f != nil && f.changed
}

// AnyChanged reports whether the user gave any of the flags.
func (s Set) AnyChanged(longs ...string) bool {
	for _, long := range longs {
		if s.Changed(long) {
			return true
		}
	}
	return false
}

// Names lists the flags by their long names.
func (s Set) Names() []string {
	var names []string
	for _, f := range s {
		names = append(names, f.Long)
	}
	return names
}

// Get returns a flag's value, or the zero value if the command has no such flag. Asking for another type than the
// flag was made with is a mistake in the program and panics.
func Get[T any](s Set, long string) T {
	f := s.Lookup(long)
	if f == nil {
		var zero T
		return zero
	}
	return f.value().(T)
}

// Text returns the value of a Text flag.
func (s Set) Text(long string) string { return Get[string](s, long) }

// Bool returns the value of a switch.
func (s Set) Bool(long string) bool { return Get[bool](s, long) }

// List returns the values of a List flag.
func (s Set) List(long string) []string { return Get[[]string](s, long) }

// Err returns the error of the first flag whose value could not be read.
func (s Set) Err() error {
	for _, f := range s {
		if f.err != nil {
			return f.err
		}
	}
	return nil
}
