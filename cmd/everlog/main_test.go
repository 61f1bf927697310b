package main

import (
	"bytes"
	"context"
	"flag"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

var update = flag.Bool("update", false, "write the golden files")

// shellFor is a shell whose output can be read; the clock stands still and the environment is empty.
func shellFor(in string) (shell *report.Shell, out, errs *bytes.Buffer) {
	out, errs = &bytes.Buffer{}, &bytes.Buffer{}
	now := time.Date(2026, 11, 25, 15, 0, 0, 0, time.UTC)
	return &report.Shell{In: strings.NewReader(in), Out: out, Err: errs, Now: func() time.Time { return now }, Getenv: func(string) string { return "" }, Version: "1.2.3"}, out, errs
}

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s differs (go test -update writes it anew):\n%s", path, got)
	}
}

// TestHelp holds the help of every command: a changed flag or word is a visible diff. No file may be left of a command
// that is gone.
func TestHelp(t *testing.T) {
	shell, _, _ := shellFor("")
	seen := map[string]bool{}
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Hidden {
			return
		}
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".txt"
		seen[name] = true
		sh, out, _ := shellFor("")
		args := append([]string{"help"}, strings.Fields(cmd.CommandPath())[1:]...)
		if code := execute(context.Background(), sh, args); code != report.Done {
			t.Errorf("%v: exit code %d", args, code)
		}
		golden(t, filepath.Join("help", name), out.String())
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(rootCommand(shell))
	files, err := os.ReadDir("testdata/help")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !seen[f.Name()] {
			t.Errorf("testdata/help/%s belongs to no command", f.Name())
		}
	}
}

// TestEveryCommandHasWords: a short description, and an argument check on everything that runs.
func TestEveryCommandHasWords(t *testing.T) {
	shell, _, _ := shellFor("")
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Short == "" {
			t.Errorf("%s has no short description", cmd.CommandPath())
		}
		if cmd.Runnable() && cmd.Args == nil && cmd.Name() != "help" {
			t.Errorf("%s does not check its arguments", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(rootCommand(shell))
}

// closedPort is an address where nothing listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestExitCodes runs command lines that need no cluster, with the exit code and words of each.
func TestExitCodes(t *testing.T) {
	closed := closedPort(t)
	tests := []struct {
		args string
		code report.Code
		want string // on standard error, or on standard output for code 0
	}{
		{"version", report.Done, "everlog 1.2.3"},
		{"version --json", report.Done, `"version": "1.2.3"`},
		{"help exit-codes", report.Done, "130  interrupted"},
		{"topic", report.Done, "everlog topic COMMAND"},
		{"completion bash", report.Done, "__start_everlog"},
		{"config explain retention.ms", report.Done, "topic setting"},
		{"config print --set num.partitions=4", report.Done, "flag --set"},
		{"config print --json", report.Done, `"origin": "default"`},
		{"config explain retention.mss", report.NotFound, "did you mean retention.ms?"},
		{"config check --set num.partitions=x", report.Usage, "Not a number of type INT"},
		{"dev --set num.partition=4", report.Usage, "did you mean num.partitions?"},
		{"dev --listen 0.0.0.0:9092", report.Usage, "--advertise HOST:PORT"},
		{"dev --node-id x", report.Usage, "flag --node-id"},
		{"dev now", report.Usage, "it takes no arguments"},
		{"serve --config /does/not/exist", report.Usage, "no such file"},
		{"doctor --store /x", report.Usage, "is no URL"},
		{"tier ls file:///does/not/exist", report.NotFound, "no such file"},
		{"tier ls gs://bucket", report.Usage, "gs"},
		{"tier ls mem://", report.NotFound, "holds no everlog cluster"},
		{"replay mem:// orders", report.NotFound, "holds no everlog cluster"},
		{"replay mem:// orders --from sideways", report.Usage, "neither an offset nor a time"},
		{"replay mem:// orders --position 1", report.Usage, "PARTITION=OFFSET"},
		{"debug dump-segment /does/not/exist", report.NotFound, "no such file"},
		{"debug dump-manifest mem:// orders x", report.Usage, "not a partition number"},
		{"topci", report.Usage, "hint: did you mean topic?"},
		{"topic lits", report.Usage, "hint: did you mean list?"},
		{"topic list --interal", report.Usage, "hint: did you mean --internal?"},
		{"topic create", report.Usage, "wants NAME..."},
		{"topic create a --retention never", report.Usage, "write forever, 30d, 500GiB"},
		{"topic create a -c x", report.Usage, `--config "x" is not NAME=VALUE`},
		{"topic alter a", report.Usage, "nothing to change"},
		{"topic trim a", report.Usage, "before"},
		{"topic trim a --before 5:9", report.Usage, "is a range"},
		{"topic add-partitions a", report.Usage, "--add 0"},
		{"consume", report.Usage, "wants TOPIC"},
		{"consume a b", report.Usage, `does not take "b"`},
		{"consume a -o sideways", report.Usage, "does not name offsets"},
		{"consume a -f %q", report.Usage, "no field %q"},
		{"consume a --output table --json -f %v", report.Usage, "exclude each other"},
		{"consume a -g g -p 0", report.Usage, "leave out -p"},
		{"group seek g a", report.Usage, "one of --to and --to-file"},
		{"group seek g a --to start --to-file x", report.Usage, "one of --to and --to-file"},
		{"group seek g a --to 5:9", report.Usage, "is a range"},
		{"group seek g --to start -p 0", report.Usage, "-p goes with --to and one topic"},
		{"group seek g --to-file /does/not/exist", report.NotFound, "no such file"},
		{"group delete", report.Usage, "wants GROUP..."},
		{"txn list --older-than x", report.Usage, "--older-than"},
		{"txn abort a", report.Usage, "wants TOPIC and PARTITION"},
		{"txn abort a x", report.Usage, "not a partition number"},
		{"txn abort a 0 --execute", report.Usage, "--start-offset or --producer-id"},
		{"produce a -f %k%v", report.Usage, "need text between"},
		{"produce a -z brotli", report.Usage, "one of none, gzip"},
		{"produce a -H x", report.Usage, "not name=value"},
		{"produce a /does/not/exist", report.NotFound, "no such file"},
		{"bench produce a --size 4", report.Usage, "--size"},
		{"bench consume a --clients 0", report.Usage, "--clients 0"},
		{"completion tcsh", report.Usage, "no completion for the shell"},
		{"help nonsense", report.Usage, "no help"},
		{"version --output xml", report.Usage, "one of"},
		{"topic list -X nonsense=1", report.Usage, "no client property"},
		{"topic list -X client.idd=1", report.Usage, "did you mean client.id?"},
		{"topic list --user me", report.Usage, "has no password"},
		{"topic list -b " + closed, report.Unreachable, "no broker answers at " + closed + " (connection refused)"},
		{"topic list -b nowhere.invalid:9092", report.Unreachable, "cannot be found"},
	}
	for _, test := range tests {
		t.Run(test.args, func(t *testing.T) {
			shell, out, errs := shellFor("")
			if code := execute(context.Background(), shell, strings.Fields(test.args)); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			where, other := errs, out
			if test.code == report.Done {
				where, other = out, errs
			}
			if !strings.Contains(where.String(), test.want) {
				t.Errorf("it says\n%s\nwant %q", where.String(), test.want)
			}
			if other.Len() > 0 {
				t.Errorf("the other stream has\n%s", other.String())
			}
			if test.code != report.Done && !strings.HasPrefix(errs.String(), "error: ") {
				t.Errorf("it does not begin with error:\n%s", errs.String())
			}
		})
	}
}

func TestInterruptedSaysNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	shell, _, errs := shellFor("")
	if code := execute(ctx, shell, []string{"topic", "list", "-b", "127.0.0.1:1"}); code != report.Interrupted || errs.Len() > 0 {
		t.Errorf("exit code %d, says %q", code, errs.String())
	}
}
