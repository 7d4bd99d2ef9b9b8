package webapp

import (
	"fmt"
	"strconv"
	"time"
)

// Config is the server's behaviour, all of it set by environment variables so
// that `service create --env` and `service update --env-add` can change it.
type Config struct {
	Port     int // TCP (HTTP) and UDP (echo)
	Task     string
	Hostname string
	Version  string

	Slow         time.Duration // every answer is this late
	StartDelay   time.Duration // nothing listens before this
	StopDelay    time.Duration // after SIGTERM, go on serving this long, then drain
	CrashAfter   time.Duration // exit 1 after this; 0 is never
	HealthyAfter time.Duration // /health says 503 until this
	Sick         bool          // /health says 503 until /health/ok
	IgnoreTerm   bool          // only SIGKILL ends it
}

// FromEnv reads the configuration; getenv is os.Getenv.
func FromEnv(getenv func(string) string, hostname string) (Config, error) {
	cfg := Config{
		Port:       80,
		Task:       getenv("TASK"),
		Hostname:   hostname,
		Version:    getenv("VERSION"),
		Sick:       getenv("HEALTH") == "fail",
		IgnoreTerm: getenv("IGNORE_TERM") != "",
	}
	if cfg.Task == "" {
		cfg.Task = hostname
	}
	if s := getenv("PORT"); s != "" {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			return Config{}, fmt.Errorf("PORT: %w", err)
		}
		cfg.Port = int(n)
	}
	for key, into := range map[string]*time.Duration{
		"SLOW":          &cfg.Slow,
		"START_DELAY":   &cfg.StartDelay,
		"STOP_DELAY":    &cfg.StopDelay,
		"CRASH_AFTER":   &cfg.CrashAfter,
		"HEALTHY_AFTER": &cfg.HealthyAfter,
	} {
		s := getenv(key)
		if s == "" {
			continue
		}
		d, err := time.ParseDuration(s)
		if err != nil {
			return Config{}, fmt.Errorf("%s: %w", key, err)
		}
		*into = d
	}
	return cfg, nil
}
