package drivers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func franzProduce(ctx context.Context, o options, out *output) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(o["broker"]), kgo.DefaultProduceTopic(o["topic"]), kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	failed := make(chan error, 1)
	partitions, words := o.int("partitions", 1), o.int("words", 0)
	n, err := pace(ctx, o, func(i int) error {
		r := &kgo.Record{Partition: int32(i % partitions), Value: []byte(o["prefix"] + strconv.Itoa(i))}
		if words > 0 {
			r.Value = fmt.Appendf(r.Value, ":word%d", i*i%words)
		}
		client.Produce(context.Background(), r, func(_ *kgo.Record, err error) {
			if err != nil {
				select {
				case failed <- err:
				default:
				}
			}
		})
		return nil
	})
	err = errors.Join(err, client.Flush(context.Background()))
	select {
	case failure := <-failed:
		return errors.Join(err, failure)
	default:
	}
	out.say("done", n)
	return err
}

// franzGroup are the options of a member that reports what it owns.
func franzGroup(o options, out *output) []kgo.Opt {
	tell := func(kind string) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, of map[string][]int32) { out.partitions(kind, of[o["topic"]]) }
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(o["broker"]), kgo.ConsumerGroup(o["group"]), kgo.ConsumeTopics(o["topic"]),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100 * time.Millisecond),
		kgo.SessionTimeout(o.millis("session", 10_000)), kgo.HeartbeatInterval(500 * time.Millisecond),
		kgo.OnPartitionsAssigned(tell("assigned")), kgo.OnPartitionsRevoked(tell("revoked")), kgo.OnPartitionsLost(tell("lost")),
	}
	if instance := o["instance"]; instance != "" {
		opts = append(opts, kgo.InstanceID(instance))
	}
	if o["protocol"] == "consumer" {
		opts = append(opts, kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer()))
	}
	if o.committed() {
		opts = append(opts, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	return opts
}

func franzMember(ctx context.Context, o options, out *output) error {
	client, err := kgo.NewClient(append(franzGroup(o, out), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll())...)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		fetches := client.PollRecords(ctx, 1000)
		fetches.EachError(func(_ string, p int32, err error) {
			if ctx.Err() == nil {
				out.say("note", "fetch of", p, err)
			}
		})
		records := fetches.Records()
		for _, r := range records {
			out.print("record", r.Partition, r.Offset, string(r.Value))
		}
		out.flush()
		if err := client.CommitRecords(context.Background(), records...); err != nil {
			out.say("note", "commit:", err)
		}
		client.AllowRebalance()
	}
	// Close drops what the coordinator says to the leave.
	if err := client.LeaveGroupContext(context.Background()); err != nil {
		out.say("note", "leave:", err)
	}
	client.CloseAllowingRebalance()
	return nil
}

type franzTxn struct{ client *kgo.Client }

func franzTransactor(ctx context.Context, o options, out *output) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(o["broker"]), kgo.DefaultProduceTopic(o["topic"]), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.TransactionalID(o["id"]), kgo.TransactionTimeout(o.millis("timeout", 60_000)),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	if _, _, err := client.ProducerID(ctx); err != nil {
		return err
	}
	return obey(os.Stdin, out, franzTxn{client})
}

func (f franzTxn) begin() error { return f.client.BeginTransaction() }

func (f franzTxn) send(partition int32, value string) error {
	return f.client.ProduceSync(context.Background(), &kgo.Record{Partition: partition, Value: []byte(value)}).FirstErr()
}

// offsets cannot be done by hand: GroupTransactSession does it, which transform uses.
func (f franzTxn) offsets(string, int32, int64) error { return errNoOffsets }

func (f franzTxn) commit() error { return f.client.EndTransaction(context.Background(), kgo.TryCommit) }

func (f franzTxn) abort() error { return f.client.EndTransaction(context.Background(), kgo.TryAbort) }

var errNoOffsets = errors.New("this client cannot commit offsets in a transaction by hand")
