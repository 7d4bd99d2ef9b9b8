//go:build race

package daemon

// Before Go 1.27 a synctest bubble can crash under the race detector.
const raceDetector = true
