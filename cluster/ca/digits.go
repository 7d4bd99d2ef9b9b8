package ca

import (
	"crypto/rand"
	"crypto/subtle"
)

const alphabet = "0123456789abcdefghijklmnopqrstuvwxyz"

// randomDigits draws uniformly: bytes beyond the last whole multiple of 36 are
// thrown away, as a plain remainder would favour the first four digits.
func randomDigits(n int) string {
	const limit = 256 - 256%len(alphabet)
	out := make([]byte, 0, n)
	var buf [64]byte
	for {
		rand.Read(buf[:]) // crypto/rand never fails: it ends the program instead
		for _, b := range buf {
			if int(b) >= limit {
				continue
			}
			out = append(out, alphabet[int(b)%len(alphabet)])
			if len(out) == n {
				return string(out)
			}
		}
	}
}

func isBase36(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// equal compares in time that depends on the length alone.
func equal(a, b string) bool {
	return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}
