package drivers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Poison begins the values written in transactions that are aborted on purpose: nobody who reads committed records sees one.
const Poison = "POISON-"

// franzTransform copies a topic exactly once.
func franzTransform(ctx context.Context, o options, out *output) error {
	opts := append(franzGroup(o, out),
		kgo.TransactionalID(o["id"]), kgo.TransactionTimeout(o.millis("timeout", 60_000)), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(o["to"]),
	)
	session, err := kgo.NewGroupTransactSession(opts...)
	if err != nil {
		return err
	}
	defer session.Close()
	// Fences the process before this one, whose transaction would hold up the offsets until it times out.
	if _, _, err := session.Client().ProducerID(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("producer id: %w", err)
	}
	seed := uint64(o.int("seed", 1))
	random := rand.New(rand.NewPCG(seed, seed))
	aborts := o.int("aborts", 0)
	for {
		fetches := session.PollRecords(ctx, 200)
		if ctx.Err() != nil {
			return nil
		}
		fetches.EachError(func(_ string, p int32, err error) { out.say("note", "fetch of", p, err) })
		if fetches.NumRecords() == 0 {
			continue
		}
		committed, err := copyInTransaction(session, fetches, aborts > 0 && random.IntN(aborts) == 0)
		switch {
		case err != nil:
			// A producer that cannot go on has been fenced, or its transaction was aborted for it: it starts anew.
			return fmt.Errorf("transaction: %w", err)
		case committed:
			out.say("committed", fetches.NumRecords())
		default:
			out.say("aborted", fetches.NumRecords())
		}
	}
}

func copyInTransaction(session *kgo.GroupTransactSession, fetches kgo.Fetches, abort bool) (committed bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := session.Begin(); err != nil {
		return false, err
	}
	var failed kgo.FirstErrPromise
	fetches.EachRecord(func(r *kgo.Record) {
		value := r.Value
		if abort {
			value = append([]byte(Poison), value...)
		}
		session.Produce(ctx, &kgo.Record{Partition: r.Partition, Value: value}, failed.Promise())
	})
	wrote := failed.Err()
	committed, err = session.End(ctx, kgo.TransactionEndTry(wrote == nil && !abort))
	if err != nil {
		return false, errors.Join(wrote, err)
	}
	return committed, nil
}
