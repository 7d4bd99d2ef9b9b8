package spec

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-units"
)

// ParseHost reads --host: name:address, or name=address, which is easier to read with an IPv6 address.
func ParseHost(value string) (string, error) {
	name, ip, ok := strings.Cut(value, "=")
	if !ok {
		name, ip, ok = strings.Cut(value, ":")
	}
	if !ok || name == "" {
		return "", fmt.Errorf("bad format for add-host: %q", value)
	}
	ip = strings.TrimSuffix(strings.TrimPrefix(ip, "["), "]")
	if ip != "host-gateway" && net.ParseIP(ip) == nil {
		return "", fmt.Errorf("invalid IP address in add-host: %q", ip)
	}
	return name + ":" + ip, nil
}

// ParseUlimit reads --ulimit: nofile=1024:2048.
func ParseUlimit(value string) (*container.Ulimit, error) { return units.ParseUlimit(value) }

// ParseIP reads --dns.
func ParseIP(value string) (string, error) {
	ip := net.ParseIP(strings.TrimSpace(value))
	if ip == nil {
		return "", fmt.Errorf("IP address is not correctly formatted: %s", value)
	}
	return ip.String(), nil
}

// ParseSearch reads --dns-search: "." means none.
func ParseSearch(value string) (string, error) {
	value = strings.TrimSpace(value)
	if value == "." {
		return value, nil
	}
	for _, label := range strings.Split(strings.TrimSuffix(value, "."), ".") {
		if label == "" || strings.ContainsFunc(label, func(r rune) bool {
			return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		}) {
			return "", fmt.Errorf("%s is not a valid domain", value)
		}
	}
	return value, nil
}

// ParseEnv reads --env: KEY=value, or KEY for the value it has here.
func ParseEnv(value string) (string, error) {
	key, _, given := strings.Cut(value, "=")
	if key == "" {
		return "", fmt.Errorf("invalid environment variable: %s", value)
	}
	if !given {
		if v, ok := os.LookupEnv(key); ok {
			return key + "=" + v, nil
		}
	}
	return value, nil
}

// ParseLabel reads --label: key, or key=value.
func ParseLabel(value string) (string, error) {
	if key, _, _ := strings.Cut(value, "="); key == "" {
		return "", fmt.Errorf("invalid label '%s': empty name", value)
	}
	return value, nil
}

// ReadEnvFile reads a file of KEY=value lines. A KEY alone takes its value from here, and is left out if it has none.
func ReadEnvFile(path string) ([]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	env, err := readEnv(file)
	if err != nil {
		return nil, fmt.Errorf("invalid env file (%s): %w", path, err)
	}
	return env, nil
}

func readEnv(r io.Reader) ([]string, error) {
	var env []string
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if n == 1 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		line = strings.TrimLeft(line, " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		key, _, given := strings.Cut(line, "=")
		switch {
		case key == "":
			return nil, fmt.Errorf("no variable name on line '%s'", line)
		case strings.ContainsAny(key, " \t"):
			return nil, fmt.Errorf("variable '%s' contains whitespaces", key)
		case given:
			env = append(env, line)
		default:
			if value, ok := os.LookupEnv(line); ok {
				env = append(env, line+"="+value)
			}
		}
	}
	return env, lines.Err()
}

// pairs turns key=value strings into a map; a key alone has an empty value.
func pairs(list []string) map[string]string {
	m := make(map[string]string, len(list))
	for _, item := range list {
		key, value, _ := strings.Cut(item, "=")
		m[key] = value
	}
	return m
}

// byKey keeps one key=value string per key, the last, in the place of the first.
func byKey(list []string) []string {
	at := map[string]int{}
	var out []string
	for _, item := range list {
		key, _, _ := strings.Cut(item, "=")
		if i, ok := at[key]; ok {
			out[i] = item
			continue
		}
		at[key] = len(out)
		out = append(out, item)
	}
	return out
}

// hostsFile turns "name:address" into the "address name" of a hosts file, which specs use.
func hostsFile(list []string) []string {
	var out []string
	for _, item := range list {
		if name, ip, ok := strings.Cut(item, ":"); ok {
			out = append(out, ip+" "+name)
		}
	}
	return out
}

func parseUserPort(value string) (port uint64, proto string, err error) {
	number, proto, given := strings.Cut(value, "/")
	if !given {
		proto = "tcp"
	}
	port, err = strconv.ParseUint(number, 10, 16)
	return port, proto, err
}
