package object

import (
	"context"
	"io"
	"time"
)

// Observer is told of every finished operation: its name (put, get, read, head, delete, list), the bytes of bodies moved,
// the time it took, and its error (io.EOF of a short read is none). It must be safe for concurrent use and not wait.
type Observer func(op string, bytes int64, took time.Duration, err error)

// Observe returns s with every operation reported to o. Below Retry it sees attempts, above it operations.
func Observe(s Store, o Observer) Store { return &observed{s, o} }

type observed struct {
	Store
	tell Observer
}

func (s *observed) Put(ctx context.Context, name string, body Body, o PutOptions) (Version, error) {
	start := time.Now()
	v, err := s.Store.Put(ctx, name, body, o)
	s.tell("put", body.Size(), time.Since(start), err)
	return v, err
}

func (s *observed) Get(ctx context.Context, name string) ([]byte, Version, error) {
	start := time.Now()
	p, v, err := s.Store.Get(ctx, name)
	s.tell("get", int64(len(p)), time.Since(start), err)
	return p, v, err
}

func (s *observed) ReadAt(ctx context.Context, name string, p []byte, position int64) (int, error) {
	start := time.Now()
	n, err := s.Store.ReadAt(ctx, name, p, position)
	told := err
	if told == io.EOF {
		told = nil
	}
	s.tell("read", int64(n), time.Since(start), told)
	return n, err
}

func (s *observed) Head(ctx context.Context, name string) (Attributes, error) {
	start := time.Now()
	a, err := s.Store.Head(ctx, name)
	s.tell("head", 0, time.Since(start), err)
	return a, err
}

func (s *observed) Delete(ctx context.Context, names ...string) error {
	start := time.Now()
	err := s.Store.Delete(ctx, names...)
	s.tell("delete", 0, time.Since(start), err)
	return err
}

func (s *observed) List(ctx context.Context, prefix, after string, limit int) ([]Attributes, error) {
	start := time.Now()
	list, err := s.Store.List(ctx, prefix, after, limit)
	s.tell("list", 0, time.Since(start), err)
	return list, err
}
