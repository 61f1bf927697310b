package objecttest

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/everlog/everlog/tier/object"
)

// testList compares every listing with the obvious computation, over names whose order as whole strings differs from that
// of their directories.
func testList(s *suite) {
	names := []string{"a-b", "a/b", "a/b-c/d", "a/b0", "a/bb/c", "a/bb/d", "a0", "a=", "b/1", "b/10", "b/2", "b-/x", "b./x", "c", "é/x"}
	slices.Sort(names)
	// "a/b" is an object, so that nothing may be below it: see the package comment of object.
	for _, name := range names {
		s.put(name, []byte(name), object.Condition{})
	}
	for _, prefix := range []string{"", "a", "a/", "a/b", "a/bb", "a/bb/", "a/bb/c", "a-", "b", "b/", "b/1", "b-", "c", "zz", "no/such/"} {
		for _, after := range append([]string{"", "A", "a", "a/", "a/b", "a/bb", "a/bb/c", "a/bb/zz", "b", "b/1", "b/1x", "zz"}, names...) {
			for _, limit := range []int{0, 1, 3, object.MaxList + 1} {
				want := expected(names, prefix, after, limit)
				list, err := s.s.List(s.ctx, prefix, after, limit)
				if got := namesOf(list); err != nil || !slices.Equal(got, want) {
					s.Fatalf("list prefix %q after %q limit %d:\ngot  %q, %v\nwant %q", prefix, after, limit, got, err, want)
				}
			}
		}
	}
}

func expected(names []string, prefix, after string, limit int) []string {
	var want []string
	for _, name := range names {
		if strings.HasPrefix(name, prefix) && name > after && (limit == 0 || len(want) < limit) {
			want = append(want, name)
		}
	}
	return want
}

func namesOf(list []object.Attributes) []string {
	var names []string
	for _, a := range list {
		names = append(names, a.Name)
	}
	return names
}

// testListPages has more names than one listing and one bulk deletion of S3 can hold.
func testListPages(s *suite) {
	const count = object.MaxList + 5
	var g errgroup.Group
	g.SetLimit(16)
	var names []string
	for i := range count {
		name := fmt.Sprintf("p/%d/%04d", i/400, i)
		names = append(names, name)
		g.Go(func() error {
			_, err := s.s.Put(s.ctx, name, object.Bytes([]byte(name)), object.PutOptions{})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		s.Fatal(err)
	}
	page, err := s.s.List(s.ctx, "p/", "", 0)
	if err != nil || !slices.Equal(namesOf(page), names[:object.MaxList]) {
		s.Fatalf("the first page has %d names, %v; want %d", len(page), err, object.MaxList)
	}
	rest, err := s.s.List(s.ctx, "p/", page[len(page)-1].Name, 0)
	if err != nil || !slices.Equal(namesOf(rest), names[object.MaxList:]) {
		s.Fatalf("the second page has %v, %v", namesOf(rest), err)
	}
	var walked []string
	for after := ""; ; {
		list, err := s.s.List(s.ctx, "p/", after, 300)
		if err != nil {
			s.Fatal(err)
		}
		walked = append(walked, namesOf(list)...)
		if len(list) < 300 {
			break
		}
		after = list[len(list)-1].Name
	}
	if !slices.Equal(walked, names) {
		s.Fatalf("pages of 300 gave %d names, want %d", len(walked), count)
	}
	if err := s.s.Delete(s.ctx, names...); err != nil {
		s.Fatal(err)
	}
	if left, err := s.s.List(s.ctx, "p/", "", 0); err != nil || len(left) != 0 {
		s.Fatalf("%d names left after deletion, %v", len(left), err)
	}
}
