package httpapi

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/containerd/errdefs"
)

// A field that this version does not know would be lost: it is in no object, and
// the next client that reads the object and writes it back takes it away for
// good. So it is refused by name. One that says nothing (null, "", 0, false, [],
// {}) is no wish: newer clients send such.

// unknown gives an error that names the first field of a JSON value that a type
// has no place for. Names are compared as encoding/json does, without case.
func unknown(raw json.RawMessage, t reflect.Type) error {
	if path := (strict{}).firstUnknown(raw, t, ""); path != "" {
		return errdefs.ErrNotImplemented.WithMessage(fmt.Sprintf("field %s is not supported by this version of shoal", path))
	}
	return nil
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// strict remembers the fields of the types that it meets in one value.
type strict map[reflect.Type]map[string]reflect.Type

func (s strict) firstUnknown(raw json.RawMessage, t reflect.Type, path string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(unmarshaler) {
		return "" // reads what it is given in its own way
	}
	switch t.Kind() {
	case reflect.Struct:
		var object map[string]json.RawMessage
		if json.Unmarshal(raw, &object) != nil {
			return ""
		}
		known := s.fieldsOf(t)
		for name, value := range object {
			field, ok := known[strings.ToLower(name)]
			if !ok {
				if saysNothing(value) && (string(value) == "null" || !zeroAsks[path+name]) {
					continue
				}
				return path + name
			}
			if at := s.firstUnknown(value, field, path+name+"."); at != "" {
				return at
			}
		}
	case reflect.Map:
		var object map[string]json.RawMessage
		if json.Unmarshal(raw, &object) != nil {
			return ""
		}
		for name, value := range object {
			if at := s.firstUnknown(value, t.Elem(), path+name+"."); at != "" {
				return at
			}
		}
	case reflect.Slice, reflect.Array:
		var list []json.RawMessage
		if t.Elem().Kind() == reflect.Uint8 || json.Unmarshal(raw, &list) != nil {
			return ""
		}
		for _, value := range list {
			if at := s.firstUnknown(value, t.Elem(), path); at != "" {
				return at
			}
		}
	}
	return ""
}

// zeroAsks are the fields of later versions of Docker's API (1.52) that say
// something with 0 as well: their clients leave them out where they say nothing.
var zeroAsks = map[string]bool{
	"TaskTemplate.Resources.SwapBytes":        true,
	"TaskTemplate.Resources.MemorySwappiness": true,
}

func saysNothing(value json.RawMessage) bool {
	switch strings.Join(strings.Fields(string(value)), "") {
	case "null", `""`, "0", "false", "[]", "{}":
		return true
	}
	return false
}

// fieldsOf gives the types of a struct's fields by name in JSON, in small letters,
// those of embedded structs included.
func (s strict) fieldsOf(t reflect.Type) map[string]reflect.Type {
	if known, ok := s[t]; ok {
		return known
	}
	known := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" || f.Anonymous && name == "" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		known[strings.ToLower(name)] = f.Type
	}
	s[t] = known
	return known
}
