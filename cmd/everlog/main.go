// Command everlog is the whole of everlog in one binary: the broker (dev, serve), the tools that speak the Kafka protocol and
// work against any Kafka (topic, produce, consume, bench), and those that read the bucket without a broker (replay, tier,
// debug). This package is the top of the command tree; the commands are in internal, one package for each kind.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

func main() {
	ctx, stop := interruptible(context.Background())
	defer stop()
	shell := &report.Shell{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Now: time.Now, Getenv: os.Getenv, Environ: os.Environ, Version: version()}
	os.Exit(int(execute(ctx, shell, os.Args[1:])))
}

// interruptible gives a context that ends at the first SIGINT or SIGTERM. The second one ends the process at once: a clean
// stop that hangs must not hold anybody up.
func interruptible(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(int(report.Interrupted))
	}()
	return ctx, cancel
}
