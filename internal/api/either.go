package api

import "strings"

// Either lists the values that a field may have, for people: "a, b or c".
func Either[S ~string](values ...S) string {
	var b strings.Builder
	for i, v := range values {
		switch {
		case i == 0:
		case i == len(values)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(string(v))
	}
	return b.String()
}
