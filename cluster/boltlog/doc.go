// Package boltlog keeps raft's log and its few stable values in one bbolt file
// that belongs to one node of one cluster. All of it is sealed with the node's
// data key.
//
// Every open reads the whole file first and refuses it unless all of it is
// right: bbolt itself trusts its pages, and a page it should not trust can
// panic it, lose the newest entries without a word, or get live data
// overwritten later.
package boltlog
