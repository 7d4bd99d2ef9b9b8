// Package e2e holds the story tests: a real shoal daemon on a real Docker
// engine, used through its command line and through the stock docker client,
// while processes are killed and data is damaged. They need Linux and root.
package e2e
