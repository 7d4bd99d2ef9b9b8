//go:build !race

package cluster

// floodKB is how much memory a flood of strangers may take.
const floodKB = 64 << 10

const raceDetector = false
