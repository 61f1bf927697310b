package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/everlog/everlog/cmd/everlog/internal/report"
	"github.com/everlog/everlog/tier/object"
)

// Broker is a running broker.
type Broker interface {
	// Wait returns when the broker has ended, with the reason if it failed.
	Wait() error
	// Stop ends it cleanly within the context's time.
	Stop(ctx context.Context) error
}

// Start starts a broker. The context is for the start alone: the broker lives on when it ends.
type Start func(ctx context.Context, s Settings, logger *slog.Logger) (Broker, error)

// Open opens the object store of a URL.
type Open func(ctx context.Context, url string) (object.Store, error)

// stopWithin is how long a clean stop may take; a container gets 120 s in deploy.
const stopWithin = 110 * time.Second

// Commands are dev, serve, config and doctor.
func Commands(shell *report.Shell, start Start, open Open) []*cobra.Command {
	p := program{shell, start, open}
	return []*cobra.Command{p.dev(), p.serve(), p.config(), p.doctor()}
}

// program is what the commands here share.
type program struct {
	shell *report.Shell
	start Start
	open  Open
}

// sources are the flags from which settings are read.
type sources struct {
	file  string
	sets  []string
	flags map[string]*string
}

// add puts the flags on a command, and the one for a file if it is to have one.
func (s *sources) add(cmd *cobra.Command, file bool, defaults map[string]string) {
	s.flags = map[string]*string{}
	for _, k := range keys {
		fallback := k.fallback
		if d, ok := defaults[k.name]; ok {
			fallback = d
		}
		s.flags[k.name] = cmd.Flags().String(k.flag(), fallback, strings.TrimSuffix(k.doc, "."))
	}
	cmd.Flags().StringArrayVar(&s.sets, "set", nil, "broker setting NAME=VALUE, by Kafka's name; everlog config explain NAME tells about one")
	if file {
		cmd.Flags().StringVar(&s.file, "config", "", "configuration file (YAML)")
	}
}

// read gathers the settings of all sources, the strongest last: default, file, environment, flag.
func (s *sources) read(cmd *cobra.Command, p program, defaults map[string]string) (*layers, error) {
	l := newLayers()
	for name, text := range defaults {
		l.own[name] = value{text, "default"}
	}
	if s.file != "" {
		if err := l.file(s.file, p.shell.ErrStyle().Enabled()); err != nil {
			return nil, err
		}
	}
	if p.shell.Environ != nil {
		l.environment(p.shell.Environ())
	}
	for _, k := range keys {
		if cmd.Flags().Changed(k.flag()) {
			l.own[k.name] = value{*s.flags[k.name], "flag --" + k.flag()}
		}
	}
	for _, assignment := range s.sets {
		if err := l.set(assignment); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (p program) dev() *cobra.Command {
	var s sources
	quiet := map[string]string{"log_level": "warn"}
	cmd := &cobra.Command{
		Use: "dev", Short: "Run one broker on this machine, without a configuration", Args: report.Args(0, 0, ""),
		Long:    "Run one broker on this machine with a directory for its store. Everything it needs has a default; nothing it keeps is lost when it stops.",
		Example: "  everlog dev\n  everlog dev --data-dir /tmp/everlog --listen localhost:19092 --set num.partitions=4",
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := s.read(cmd, p, quiet)
			if err != nil {
				return err
			}
			return p.run(cmd.Context(), l, true)
		},
	}
	s.add(cmd, false, quiet)
	return cmd
}

func (p program) serve() *cobra.Command {
	var s sources
	cmd := &cobra.Command{
		Use: "serve", Short: "Run a broker of a cluster", Args: report.Args(0, 0, ""),
		Long: "Run a broker. Its configuration comes from --config FILE, then from EVERLOG_ variables, then from flags; the later wins.\n" +
			"everlog config print shows the result, with where each value comes from.",
		Example: "  everlog serve --config /etc/everlog/everlog.yaml\n  EVERLOG_NODE_ID=2 everlog serve --config everlog.yaml --listen 0.0.0.0:9092 --advertise b2:9092",
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := s.read(cmd, p, nil)
			if err != nil {
				return err
			}
			return p.run(cmd.Context(), l, false)
		},
	}
	s.add(cmd, true, nil)
	return cmd
}

// run starts the broker and keeps it until it fails or the context ends (SIGTERM, SIGINT), which is a clean stop: exit 0.
func (p program) run(ctx context.Context, l *layers, dev bool) error {
	s, err := l.settings()
	if err != nil {
		return err
	}
	logger := newLogger(p.shell.Err, s)
	began := time.Now()
	broker, err := p.start(ctx, s, logger)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return report.Errorf(report.Failed, "broker %d cannot start: %w", s.NodeID, err).WithHint("everlog doctor --data-dir %s --store %s looks at the disk and the store", s.DataDir, showURL(s.Store))
	}
	if dev {
		if err := banner(p.shell, s, time.Since(began)); err != nil {
			return err
		}
	} else {
		logger.Info("broker is ready", "version", p.shell.Version, "node", s.NodeID, "listen", s.Listen, "advertise", s.Advertise, "store", showURL(s.Store), "took", time.Since(began))
	}
	ended := make(chan error, 1)
	go func() { ended <- broker.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		logger.Info("broker stops")
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
		defer cancel()
		if err = broker.Stop(limited); err == nil {
			err = <-ended
		}
	}
	if err != nil {
		return report.Errorf(report.Failed, "broker %d: %w", s.NodeID, err)
	}
	return nil
}

func newLogger(w io.Writer, s Settings) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(s.LogLevel)) // one of four words, checked
	options := &slog.HandlerOptions{Level: level}
	if s.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// showURL is a store's URL without its secrets.
func showURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(unreadable URL)"
	}
	if u.User == nil && u.RawQuery == "" {
		return raw
	}
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	q := u.Query()
	for name := range q {
		switch name {
		case "secret", "secret_key", "password", "session_token":
			q.Set(name, "hidden")
		}
	}
	u.RawQuery = q.Encode()
	return fmt.Sprint(u)
}
