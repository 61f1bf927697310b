package grammar

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFormat(t *testing.T) {
	r := &Record{Topic: "orders", Partition: 3, Offset: 47, Timestamp: 1795618200123, Key: []byte("k"), Value: []byte("value"), Headers: []Header{{"a", []byte("1")}, {"b", nil}}}
	tests := map[string]string{
		`%v\n`:             "value\n",
		`%s`:               "value",
		`%k\t%v\n`:         "k\tvalue\n",
		`%t[%p]@%o %%`:     "orders[3]@47 %",
		`%T %d`:            "1795618200123 2026-11-25T14:50:00.123Z",
		`%h|%K|%V`:         "a=1,b=|1|5",
		`\x41\\\0\r\x7c%k`: "A\\\x00\r|k",
		``:                 "",
	}
	for in, want := range tests {
		f, err := ParseFormat(in)
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		if got := string(f.Append(nil, r)); got != want {
			t.Errorf("%q prints %q, want %q", in, got, want)
		}
	}
	for _, in := range []string{"%", "%q", `\`, `\q`, `\x4`, `\xgg`} {
		if _, err := ParseFormat(in); err == nil {
			t.Errorf("%q was taken for a format", in)
		}
	}
}

func scanAll(t *testing.T, format, in string) ([]Record, error) {
	t.Helper()
	f, err := ParseFormat(format)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewScanner(strings.NewReader(in), f)
	if err != nil {
		return nil, err
	}
	var all []Record
	for {
		r, err := s.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, r)
	}
}

func TestScanner(t *testing.T) {
	b := func(s string) []byte { return []byte(s) }
	long := strings.Repeat("x", 200_000)
	tests := []struct {
		name, format, in string
		want             []Record
	}{
		{"lines", `%v\n`, "a\nbb\n\nc", []Record{{Value: b("a")}, {Value: b("bb")}, {Value: b("")}, {Value: b("c")}}},
		{"key and value", `%k\t%v\n`, "k1\tv1\nk2\tv 2\t!\n", []Record{{Key: b("k1"), Value: b("v1")}, {Key: b("k2"), Value: b("v 2\t!")}}},
		{"two lines a record", `%k\n%v\n`, "k1\nv1\nk2\nv2", []Record{{Key: b("k1"), Value: b("v1")}, {Key: b("k2"), Value: b("v2")}}},
		{"whole input", `%v`, "a\nb\n", []Record{{Value: b("a\nb\n")}}},
		{"framed", `<%v>\n`, "<a>\n<b\n>\n", []Record{{Value: b("a")}, {Value: b("b\n")}}},
		{"all fields", `%t %p %T %h %k=%v\n`, "x 3 1795618200123 a=1,b= k=v\n", []Record{{Topic: "x", Partition: 3, Timestamp: 1795618200123, Headers: []Header{{"a", b("1")}, {"b", b("")}}, Key: b("k"), Value: b("v")}}},
		{"written time", `%d %v\n`, "2026-11-25T14:50:00.123Z v\n", []Record{{Timestamp: 1795618200123, Value: b("v")}}},
		{"longer than the buffer", `%v\n`, long + "\n" + long, []Record{{Value: b(long)}, {Value: b(long)}}},
		{"empty", `%v\n`, "", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := scanAll(t, test.format, test.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestScannerRefuses(t *testing.T) {
	tests := []struct{ format, in, want string }{
		{`%k%v\n`, "", "need text between"},
		{`%o %v\n`, "", "cannot be read"},
		{`\n`, "", "no field"},
		{`%v %v\n`, "", "twice"},
		{`%k\t%v\n`, "k1\tv1\nk2 v2\nk3\tv3\n", `record 2 has no "\t"`},
		{`%k\t%v\n`, "k1", "ends before"},
		{`%k\t%v\n`, "k1\n", `record 1 has no "\t"`},
		{`%p %v\n`, "x v\n", "not a partition"},
		{`%T %v\n`, "x v\n", "not a time"},
		{`%h %v\n`, "x v\n", "name=value"},
		{`<%v>\n`, "<a>\nb>\n", "does not begin"},
	}
	for _, test := range tests {
		if _, err := scanAll(t, test.format, test.in); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("format %q, input %q: %v, want %q", test.format, test.in, err, test.want)
		}
	}
}

// FuzzFormatRoundTrip: what a format prints of keys and values without its separators, it reads back.
func FuzzFormatRoundTrip(f *testing.F) {
	f.Add("key", "value")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, key, value string) {
		if strings.ContainsAny(key+value, "\t\n") {
			return
		}
		format, err := ParseFormat(`%k\t%v\n`)
		if err != nil {
			t.Fatal(err)
		}
		text := format.Append(nil, &Record{Key: []byte(key), Value: []byte(value)})
		got, err := scanAll(t, `%k\t%v\n`, string(text))
		if err != nil || len(got) != 1 || string(got[0].Key) != key || string(got[0].Value) != value {
			t.Fatalf("%q %q came back as %v %v", key, value, got, err)
		}
	})
}
