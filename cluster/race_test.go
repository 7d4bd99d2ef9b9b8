//go:build race

package cluster

// floodKB is how much memory a flood of strangers may take: the race detector
// keeps several times what it watches.
const floodKB = 256 << 10

const raceDetector = true
