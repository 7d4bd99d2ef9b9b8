// Package sim helps tests to judge a cluster under faults: a network between
// managers that delays, loses, repeats and cuts, in simulated time, and a history
// of what clients asked and were told, which is checked for linearizability.
//
// Only tests import it.
package sim
