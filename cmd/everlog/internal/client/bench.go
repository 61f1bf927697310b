package client

import (
	"context"
	"encoding/csv"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/everlog/everlog/cmd/everlog/internal/connect"
	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/latency"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

// benchFlags are what all benches share.
type benchFlags struct {
	duration   time.Duration
	clients    int
	csv        string
	partitions int32
	replicas   int16
}

func benchCommand(shell *report.Shell) *cobra.Command {
	cmd := &cobra.Command{
		Use: "bench", Short: "Measure a cluster: produce, consume, catch up",
		Long: "Measure a cluster. Figures are those of the clients: MB/s of keys and values (10^6 bytes), latency as a producer or a consumer sees it.\n" +
			"Every second's figures go to --csv FILE; --json prints the whole result.",
		Example: "  everlog bench produce load --clients 4 --size 1KiB --duration 30s\n  everlog bench catchup load --clients 10 --json",
	}
	k := kafka{shell, connect.Add(cmd, shell)}
	cmd.AddCommand(benchProduce(k), benchConsume(k), benchCatchup(k))
	return cmd
}

func (b *benchFlags) add(cmd *cobra.Command) {
	cmd.Flags().IntVar(&b.clients, "clients", 1, "number of clients, each with connections of its own")
	cmd.Flags().StringVar(&b.csv, "csv", "", "file for the figures of every second")
}

func (b *benchFlags) check() error {
	if b.clients < 1 || b.clients > 10_000 {
		return report.Usagef("--clients %d is not between 1 and 10000", b.clients)
	}
	return nil
}

// millis are latencies in milliseconds.
type millis struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

func millisOf(h *latency.Histogram) *millis {
	if h.Count() == 0 {
		return nil
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return &millis{ms(h.Mean()), ms(h.Quantile(0.5)), ms(h.Quantile(0.99)), ms(h.Quantile(0.999)), ms(h.Max())}
}

// benchDoc is the result of a bench.
type benchDoc struct {
	V         int     `json:"v"`
	Bench     string  `json:"bench"`
	Topic     string  `json:"topic"`
	Clients   int     `json:"clients"`
	Seconds   float64 `json:"seconds"`
	Records   int64   `json:"records"`
	Bytes     int64   `json:"bytes"`
	Rate      float64 `json:"records_per_second"`
	MBPerSec  float64 `json:"mb_per_second"`
	Latency   *millis `json:"latency_ms,omitempty"`
	FirstByte *millis `json:"first_record_ms,omitempty"`
	Errors    int64   `json:"errors"`
}

// meter counts what the clients of a bench do. Safe for concurrent use.
type meter struct {
	mu      sync.Mutex
	second  interval // the one running
	total   interval
	first   latency.Histogram
	errors  int64
	lastErr error
	began   time.Time
}

// interval is what was done in a while.
type interval struct {
	records, bytes int64
	latency        latency.Histogram
}

func (i *interval) merge(o *interval) {
	i.records, i.bytes = i.records+o.records, i.bytes+o.bytes
	i.latency.Merge(&o.latency)
}

// done counts records with a latency each.
func (m *meter) done(bytes int64, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.second.records++
	m.second.bytes += bytes
	m.second.latency.Add(took)
}

// passed counts records without latencies.
func (m *meter) passed(records, bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.second.records += records
	m.second.bytes += bytes
}

// firstAfter notes how long a client waited for its first record.
func (m *meter) firstAfter(took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.first.Add(took)
}

func (m *meter) failed(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.errors++
	m.lastErr = err
}

// run starts the clients, tells the figures of every second, and returns the result when all clients have ended.
func (k kafka) run(ctx context.Context, name, topic string, b benchFlags, client func(ctx context.Context, n int, m *meter) error) error {
	out, err := newSeconds(b.csv)
	if err != nil {
		return err
	}
	m := &meter{began: time.Now()}
	limited, stop := context.WithCancel(ctx)
	defer stop()
	var clients sync.WaitGroup
	for n := range b.clients {
		clients.Go(func() {
			if err := client(limited, n, m); err != nil {
				m.failed(err)
				stop()
			}
		})
	}
	ended := make(chan struct{})
	go func() { clients.Wait(); close(ended) }()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-tick.C:
		case <-ended:
			running = false
		}
		if err := m.roll(k.shell, out); err != nil {
			return err
		}
	}
	if err := out.close(); err != nil {
		return report.Errorf(report.Failed, "--csv: %w", err)
	}
	return k.result(ctx, name, topic, b, m)
}

// result prints what was measured.
func (k kafka) result(ctx context.Context, name, topic string, b benchFlags, m *meter) error {
	seconds := max(time.Since(m.began).Seconds(), 1e-9)
	doc := &benchDoc{
		V: 1, Bench: name, Topic: topic, Clients: b.clients, Seconds: seconds, Records: m.total.records, Bytes: m.total.bytes,
		Rate: float64(m.total.records) / seconds, MBPerSec: float64(m.total.bytes) / 1e6 / seconds,
		Latency: millisOf(&m.total.latency), FirstByte: millisOf(&m.first), Errors: m.errors,
	}
	err := k.shell.Printer().Print(doc, func(t *report.Table) { printBench(t, doc) })
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return k.flags.Explain(m.lastErr, topicNamed(topic), "")
}

func printBench(t *report.Table, d *benchDoc) {
	t.Row("BENCH", "CLIENTS", "SECONDS", "RECORDS", "RECORDS/S", "MB/S", "MEAN-MS", "P50-MS", "P99-MS", "P99.9-MS", "MAX-MS", "ERRORS")
	row := []any{d.Bench, d.Clients, fmt.Sprintf("%.1f", d.Seconds), d.Records, fmt.Sprintf("%.0f", d.Rate), fmt.Sprintf("%.1f", d.MBPerSec)}
	l := d.Latency
	if l == nil {
		l = d.FirstByte
	}
	if l == nil {
		row = append(row, "-", "-", "-", "-", "-")
	} else {
		for _, v := range []float64{l.Mean, l.P50, l.P99, l.P999, l.Max} {
			row = append(row, fmt.Sprintf("%.2f", v))
		}
	}
	t.Row(append(row, d.Errors)...)
	if d.Latency == nil && d.FirstByte != nil {
		t.Line("latency is that of a client's first record")
	}
}

// roll closes the running second: told on standard error, written to the CSV, added to the total.
func (m *meter) roll(shell *report.Shell, out *secondsFile) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.second.records > 0 || m.errors > 0 {
		l := millisOf(&m.second.latency)
		text := ""
		if l != nil {
			text = fmt.Sprintf("  p50 %.2f ms  p99 %.2f ms  max %.2f ms", l.P50, l.P99, l.Max)
		}
		if shell.Progress != "off" {
			shell.Notef("%5.0f s  %9d records  %9s%s", time.Since(m.began).Seconds(), m.second.records, grammar.FormatSize(m.second.bytes), text)
		}
		if err := out.write(time.Since(m.began), &m.second, l); err != nil {
			return report.Errorf(report.Failed, "--csv: %w", err)
		}
	}
	m.total.merge(&m.second)
	m.second = interval{}
	return nil
}

// secondsFile is the CSV of every second; without a name it is nothing.
type secondsFile struct {
	file *os.File
	csv  *csv.Writer
}

func newSeconds(name string) (*secondsFile, error) {
	if name == "" {
		return &secondsFile{}, nil
	}
	file, err := os.Create(name)
	if err != nil {
		return nil, report.Errorf(report.Failed, "--csv: %w", err)
	}
	f := &secondsFile{file, csv.NewWriter(file)}
	return f, f.csv.Write([]string{"seconds", "records", "bytes", "p50_ms", "p99_ms", "p999_ms", "max_ms"})
}

func (f *secondsFile) write(at time.Duration, i *interval, l *millis) error {
	if f.file == nil {
		return nil
	}
	if l == nil {
		l = &millis{}
	}
	ms := func(v float64) string { return strconv.FormatFloat(v, 'f', 3, 64) }
	return f.csv.Write([]string{ms(at.Seconds()), decimal(i.records), decimal(i.bytes), ms(l.P50), ms(l.P99), ms(l.P999), ms(l.Max)})
}

func (f *secondsFile) close() error {
	if f.file == nil {
		return nil
	}
	f.csv.Flush()
	if err := f.csv.Error(); err != nil {
		return err
	}
	return f.file.Close()
}

// ensureTopic makes the topic of a bench if it is not there.
func (k kafka) ensureTopic(ctx context.Context, topic string, b benchFlags) error {
	return k.with(ctx, func(s *session) error {
		responses, err := s.admin.CreateTopics(s.ctx, b.partitions, b.replicas, nil, topic)
		if err != nil {
			return k.flags.Explain(err, topicNamed(topic), "")
		}
		r := responses[topic]
		if r.Err == nil || isKafka(r.Err, "TOPIC_ALREADY_EXISTS") {
			return nil
		}
		return k.flags.Explain(r.Err, topicNamed(topic), r.ErrMessage)
	})
}

// bounds resolves a whole topic once for all clients.
func (k kafka) bounds(ctx context.Context, topic string, offsets grammar.Range) (spans, error) {
	var found spans
	err := k.with(ctx, func(s *session) error {
		var err error
		found, err = resolve(s.ctx, k.flags, s.admin, question{topic: topic, offsets: offsets})
		return err
	})
	return found, err
}
