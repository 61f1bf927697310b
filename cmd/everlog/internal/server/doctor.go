package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/everlog/everlog/cmd/everlog/internal/connect"
	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/latency"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
	"github.com/everlog/everlog/tier/vfs"
)

// The limits at which doctor has something to say.
const (
	syncWrites    = 200                   // fsyncs that are measured
	syncSlow      = 50 * time.Millisecond // a slower p99 is a warning: every acknowledgement waits for one
	freeLow       = 10                    // per cent of the disk: less is a warning
	openFilesLow  = 65536                 // fewer is a warning: each connection and each segment in use is one
	resolveWithin = 5 * time.Second
)

// verdict is the result of one check.
type verdict string

const (
	fine   verdict = "ok"
	warned verdict = "warning"
	failed verdict = "failed"
)

// finding is one line of the doctor's report.
type finding struct {
	Check  string  `json:"check"`
	Result verdict `json:"result"`
	Detail string  `json:"detail"`
	Hint   string  `json:"hint,omitempty"`
}

type findings struct {
	V      int       `json:"v"`
	Checks []finding `json:"checks"`
}

// Items are the lines of jsonl.
func (f *findings) Items() []any {
	items := make([]any, len(f.Checks))
	for i := range f.Checks {
		items[i] = f.Checks[i]
	}
	return items
}

func (f *findings) add(check string, result verdict, hint, format string, args ...any) {
	f.Checks = append(f.Checks, finding{check, result, fmt.Sprintf(format, args...), hint})
}

func (p program) doctor() *cobra.Command {
	var s sources
	cmd := &cobra.Command{
		Use: "doctor", Short: "Check disk, ports, limits, the store and the brokers", Args: report.Args(0, 0, ""),
		Long: "Check what a broker needs: disk space and the time of an fsync in --data-dir, the ports, the limits of this process, every right on the\n" +
			"store with its conditional writes, and, with -b, whether the brokers of a cluster can be dialled where they say they are.\n" +
			"Nothing is left behind. The exit code is 3 if a check failed; a warning is no failure.",
		Example: "  everlog doctor --data-dir /var/lib/everlog --store s3://bucket/prefix\n  everlog doctor --config everlog.yaml\n  everlog doctor -b broker:9092",
	}
	s.add(cmd, true, nil)
	brokers := connect.Add(cmd, p.shell)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		l, err := s.read(cmd, p, nil)
		if err != nil {
			return err
		}
		settings, err := l.settings()
		if err != nil {
			return err
		}
		f := &findings{V: 1}
		f.disk(settings.DataDir)
		f.ports(settings)
		f.advertised(cmd.Context(), settings.Advertise)
		f.limits()
		if l.own["store"].text != "" || exists(settings.DataDir) {
			f.store(cmd.Context(), p.open, settings.Store)
		}
		if len(brokers.Brokers) > 0 {
			f.brokers(cmd.Context(), brokers)
		}
		return f.print(p.shell)
	}
	return cmd
}

func (f *findings) print(shell *report.Shell) error {
	bad := 0
	style := shell.OutStyle()
	err := shell.Printer().Print(f, func(t *report.Table) {
		t.Row("CHECK", "RESULT", "DETAIL")
		for _, c := range f.Checks {
			t.Row(c.Check, paint(style, c.Result), c.Detail)
		}
	})
	for _, c := range f.Checks {
		if c.Result == failed {
			bad++
		}
		if c.Result != fine && c.Hint != "" && !shell.Printer().Structured() {
			shell.Notef("hint: %s: %s", c.Check, c.Hint)
		}
	}
	if err != nil || bad == 0 {
		return err
	}
	return report.Errorf(report.Partial, "%d of %d checks failed", bad, len(f.Checks))
}

func paint(style report.Style, v verdict) string {
	switch v {
	case fine:
		return style.Green(string(v))
	case warned:
		return style.Yellow(string(v))
	}
	return style.Red(string(v))
}

func exists(dir string) bool {
	_, err := os.Stat(dir)
	return err == nil
}

// disk looks at the file system that holds, or will hold, the data directory.
func (f *findings) disk(dir string) {
	at := dir
	for !exists(at) {
		up := filepath.Dir(filepath.Clean(at))
		if up == at {
			break
		}
		at = up
	}
	total, free, err := vfs.OS().Usage(at)
	switch {
	case err != nil:
		f.add("disk space", failed, "", "%s: %v", at, err)
	case total > 0 && free*100/total < freeLow:
		f.add("disk space", warned, "local.budget.bytes bounds what a broker keeps; producers are slowed as room runs out", "%s free of %s in %s", grammar.FormatSize(free), grammar.FormatSize(total), at)
	default:
		f.add("disk space", fine, "", "%s free of %s in %s", grammar.FormatSize(free), grammar.FormatSize(total), at)
	}
	times, err := measureSync(vfs.OS(), at)
	if err != nil {
		f.add("fsync", failed, "the broker must be able to write there", "%s: %v", at, err)
		return
	}
	detail := fmt.Sprintf("p50 %.2f ms, p99 %.2f ms, max %.2f ms (%d writes of 4 KiB)", ms(times.Quantile(0.5)), ms(times.Quantile(0.99)), ms(times.Max()), times.Count())
	if times.Quantile(0.99) > syncSlow {
		f.add("fsync", warned, "every acknowledged write waits for an fsync: use a disk with power-loss protection", "%s", detail)
		return
	}
	f.add("fsync", fine, "", "%s", detail)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// measureSync times small synced appends in a file that it removes.
func measureSync(files vfs.FS, dir string) (times *latency.Histogram, err error) {
	name := filepath.Join(dir, fmt.Sprintf(".everlog-doctor-%d", os.Getpid()))
	file, err := files.Create(name)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s is left of an earlier run; remove it", name)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close(), files.Remove(name)) }()
	times = &latency.Histogram{}
	page := make([]byte, 4096)
	for i := range int64(syncWrites) {
		began := time.Now()
		if _, err := file.WriteAt(page, i*int64(len(page))); err != nil {
			return nil, err
		}
		if err := file.Sync(); err != nil {
			return nil, err
		}
		times.Add(time.Since(began))
	}
	return times, nil
}

// ports tries to listen where the broker will.
func (f *findings) ports(s Settings) {
	for _, port := range []struct{ check, address, flag string }{{"port of Kafka", s.Listen, "--listen"}, {"port of HTTP", s.HTTP, "--http"}} {
		l, err := net.Listen("tcp", port.address)
		if err != nil {
			f.add(port.check, failed, "something listens there already, perhaps a broker that runs; "+port.flag+" HOST:PORT takes another", "%v", err)
			continue
		}
		f.add(port.check, fine, "", "%s is free", l.Addr())
		_ = l.Close()
	}
}

// advertised looks up the name that clients will be told.
func (f *findings) advertised(ctx context.Context, address string) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return // the settings were checked
	}
	limited, cancel := context.WithTimeout(ctx, resolveWithin)
	defer cancel()
	found, err := net.DefaultResolver.LookupHost(limited, host)
	switch {
	case err != nil:
		f.add("advertised name", failed, "clients are told to dial it: it must resolve on their machines", "%s: %v", address, err)
	case net.ParseIP(found[0]).IsLoopback():
		f.add("advertised name", warned, "clients on other machines cannot dial it; --advertise HOST:PORT says what they should dial", "%s is this machine only", address)
	default:
		f.add("advertised name", fine, "", "%s is %s", address, found[0])
	}
}

// limits looks at what the operating system allows this process.
func (f *findings) limits() {
	n, err := openFiles()
	switch {
	case err != nil:
		f.add("open files", warned, "", "%v", err)
	case n < openFilesLow:
		f.add("open files", warned, fmt.Sprintf("ulimit -n %d, or LimitNOFILE= in the service's unit", openFilesLow), "at most %d", n)
	default:
		f.add("open files", fine, "", "at most %d", n)
	}
}
