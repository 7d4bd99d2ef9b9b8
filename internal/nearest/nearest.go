// Package nearest finds what somebody meant who mistyped a word.
package nearest

import "strings"

// farthest is how many letters a word may differ in: more than two changes away
// is another word.
const farthest = 2

// distance is the number of letters to insert, remove or replace to make b of a
// (Levenshtein, 1966).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// Word gives the candidate that is nearest to a word, the first of several, or
// "" if none is near. A word cut short is near to the whole.
func Word(word string, candidates []string) string {
	best, least := "", farthest+1
	for _, c := range candidates {
		d := distance(word, c)
		if strings.HasPrefix(c, word) {
			d = min(d, 1)
		}
		if d < least {
			best, least = c, d
		}
	}
	return best
}
