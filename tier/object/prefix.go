package object

import (
	"context"
	"errors"
	"strings"
)

// Prefix returns the part of s below prefix as a store of its own: "a/b" makes the name "c" into "a/b/c". Slashes at the
// ends of prefix do not count; an empty one returns s. Errors name the objects as s does.
func Prefix(s Store, prefix string) Store {
	if prefix = strings.Trim(prefix, "/"); prefix == "" {
		return s
	}
	return &prefixed{s, prefix + "/"}
}

type prefixed struct {
	s      Store
	prefix string
}

func (p *prefixed) Put(ctx context.Context, name string, body Body, o PutOptions) (Version, error) {
	if err := CheckPut(name, o); err != nil { // the prefix would hide that name is empty or begins with a slash
		return "", err
	}
	return p.s.Put(ctx, p.prefix+name, body, o)
}

func (p *prefixed) Get(ctx context.Context, name string) ([]byte, Version, error) {
	return p.s.Get(ctx, p.prefix+name)
}

func (p *prefixed) ReadAt(ctx context.Context, name string, b []byte, position int64) (int, error) {
	return p.s.ReadAt(ctx, p.prefix+name, b, position)
}

func (p *prefixed) Head(ctx context.Context, name string) (Attributes, error) {
	a, err := p.s.Head(ctx, p.prefix+name)
	a.Name = strings.TrimPrefix(a.Name, p.prefix)
	return a, err
}

func (p *prefixed) Delete(ctx context.Context, names ...string) error {
	whole := make([]string, len(names))
	for i, name := range names {
		whole[i] = p.prefix + name
	}
	err := p.s.Delete(ctx, whole...)
	var partial *DeleteError
	if !errors.As(err, &partial) {
		return err
	}
	left := make([]string, len(partial.Names))
	for i, name := range partial.Names {
		left[i] = strings.TrimPrefix(name, p.prefix)
	}
	return &DeleteError{Names: left, Err: partial.Err}
}

func (p *prefixed) List(ctx context.Context, prefix, after string, limit int) ([]Attributes, error) {
	if after != "" {
		after = p.prefix + after
	}
	list, err := p.s.List(ctx, p.prefix+prefix, after, limit)
	for i := range list {
		list[i].Name = strings.TrimPrefix(list[i].Name, p.prefix)
	}
	return list, err
}

func (p *prefixed) String() string {
	return strings.TrimSuffix(p.s.String(), "/") + "/" + strings.TrimSuffix(p.prefix, "/")
}
