package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/docker/docker/api/types/swarm"
	"golang.org/x/term"

	"shoal/cli/flags"
)

func (s *session) lockCommands() []leaf {
	return []leaf{
		{name: "unlock", usage: "Unlock swarm", arity: none, run: s.swarmUnlock},
		{
			name: "unlock-key", usage: "Manage the unlock key", arity: none, run: s.swarmUnlockKey,
			flags: flags.Set{
				flags.Bool("quiet", "q", "Only display token"),
				flags.Bool("rotate", "", "Rotate unlock key"),
			},
		},
	}
}

// showUnlockKey prints the key that managers are locked with.
func (s *session) showUnlockKey(ctx context.Context) error {
	key, err := s.unlockKey(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "To unlock a swarm manager after it restarts, run the `shoal swarm unlock`\ncommand and provide the following key:\n\n    %s\n\nRemember to store this key in a password manager, since without it you\nwill not be able to restart the manager.\n", key)
	return nil
}

func (s *session) unlockKey(ctx context.Context) (string, error) {
	api, err := s.api()
	if err != nil {
		return "", err
	}
	key, err := api.SwarmGetUnlockKey(ctx)
	if err != nil {
		return "", fmt.Errorf("could not fetch unlock key: %w", err)
	}
	return key.UnlockKey, nil
}

func (s *session) swarmUnlockKey(ctx context.Context, in input) error {
	if in.Bool("rotate") {
		if err := s.rotateUnlockKey(ctx, in.Bool("quiet")); err != nil {
			return err
		}
	}
	key, err := s.unlockKey(ctx)
	if err != nil {
		return err
	}
	switch {
	case key == "":
		return errors.New("no unlock key is set")
	case in.Bool("quiet"):
		fmt.Fprintln(s.out, key)
		return nil
	}
	if err := s.showUnlockKey(ctx); err != nil || in.Bool("rotate") {
		return err // just after a rotation, managers are about to take the new key
	}
	return s.showPreviousKeys(ctx)
}

func (s *session) rotateUnlockKey(ctx context.Context, quiet bool) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	cluster, err := api.SwarmInspect(ctx)
	if err != nil {
		return err
	}
	if !cluster.Spec.EncryptionConfig.AutoLockManagers {
		return errors.New("cannot rotate because autolock is not turned on")
	}
	if err := api.SwarmUpdate(ctx, cluster.Version, cluster.Spec, swarm.UpdateFlags{RotateManagerUnlockKey: true}); err != nil {
		return err
	}
	if !quiet {
		fmt.Fprint(s.out, "Successfully rotated manager unlock key.\n\n")
	}
	return nil
}

// showPreviousKeys names the keys that managers which were away may still need.
// Docker's client does not know of them.
func (s *session) showPreviousKeys(ctx context.Context) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	var more struct{ PreviousKeys []string }
	if err := s.ask(ctx, http.MethodGet, "/v"+api.ClientVersion()+"/swarm/unlockkey", nil, &more); err != nil {
		return fmt.Errorf("could not fetch unlock key: %w", err)
	}
	if len(more.PreviousKeys) > 0 {
		fmt.Fprintf(s.out, "\nA manager that has not run since the key was rotated still needs the one of\nthat time, newest first:\n\n    %s\n", strings.Join(more.PreviousKeys, "\n    "))
	}
	return nil
}

func (s *session) swarmUnlock(ctx context.Context, _ input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	info, err := api.Info(ctx)
	if err != nil {
		return err
	}
	switch info.Swarm.LocalNodeState {
	case swarm.LocalNodeStateLocked:
	case swarm.LocalNodeStateInactive:
		return errors.New("Error: This node is not part of a swarm") //nolint:staticcheck // Docker's text
	default:
		return errors.New("Error: swarm is not locked") //nolint:staticcheck // Docker's text
	}
	key, err := s.readKey("Enter unlock key: ")
	if err != nil {
		return err
	}
	return api.SwarmUnlock(ctx, swarm.UnlockRequest{UnlockKey: key})
}

// readKey reads one line, without showing it where it is typed.
func (s *session) readKey(prompt string) (string, error) {
	if f, ok := s.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(s.out, prompt)
		key, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(s.out)
		if err != nil {
			return "", fmt.Errorf("read the key: %w", err)
		}
		return strings.TrimSpace(string(key)), nil
	}
	key, err := bufio.NewReader(s.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the key: %w", err)
	}
	return strings.TrimSpace(key), nil
}
