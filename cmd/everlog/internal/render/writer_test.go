package render

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"testing"

	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

func TestWriter(t *testing.T) {
	records := []*grammar.Record{
		{Topic: "a", Partition: 1, Offset: 2, Timestamp: 1795618200123, Key: []byte("k"), Value: []byte("v<1>"), Headers: []grammar.Header{{Key: "h", Value: []byte("x")}}},
		{Topic: "a", Partition: 1, Offset: 3, Timestamp: -1, Value: []byte{0xff, 0}},
		{Topic: "a", Partition: 1, Offset: 4, Timestamp: 0, Key: []byte{}},
	}
	tests := []struct{ output, format, want string }{
		{"", "", "v<1>\n\xff\x00\n\n"},
		{"raw", "", "v<1>\xff\x00"},
		{"", `%o=%v;`, "2=v<1>;3=\xff\x00;4=;"},
		{"jsonl", "", `{"v":1,"topic":"a","partition":1,"offset":2,"timestamp":"2026-11-25T14:50:00.123Z","key":"k","value":"v<1>","headers":[{"key":"h","value":"x"}]}
{"v":1,"topic":"a","partition":1,"offset":3,"timestamp":"-","key":null,"value":null,"value_base64":"/wA="}
{"v":1,"topic":"a","partition":1,"offset":4,"timestamp":"1970-01-01T00:00:00.000Z","key":"","value":null}
`},
	}
	for _, test := range tests {
		var b bytes.Buffer
		w, err := NewWriter(&b, &report.Shell{Output: test.output}, test.format)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if err := w.Write(r); err != nil {
				t.Fatal(err)
			}
		}
		if b.String() != test.want {
			t.Errorf("--output %q -f %q:\n%s\nwant\n%s", test.output, test.format, b.String(), test.want)
		}
	}
	for _, bad := range [][2]string{{"yaml", ""}, {"jsonl", "%v"}, {"", "%q"}} {
		if _, err := NewWriter(&bytes.Buffer{}, &report.Shell{Output: bad[0]}, bad[1]); report.CodeOf(err) != report.Usage {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// FuzzJSON: every line is JSON, and gives back the bytes that went in.
func FuzzJSON(f *testing.F) {
	f.Add([]byte("k"), []byte("v\n\"\\\x00\u2028"), "h")
	f.Add([]byte{0xff}, []byte{}, "\xff")
	f.Fuzz(func(t *testing.T, key, value []byte, header string) {
		var b bytes.Buffer
		w, err := NewWriter(&b, &report.Shell{JSON: true}, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(&grammar.Record{Topic: "a", Key: key, Value: value, Headers: []grammar.Header{{Key: header, Value: value}, {Key: "x"}}}); err != nil {
			t.Fatal(err)
		}
		var line struct {
			Headers []struct{ Key string }
		}
		var fields map[string]any
		if err := json.Unmarshal(b.Bytes(), &fields); err != nil {
			t.Fatalf("%v in %q", err, b.String())
		}
		if err := json.Unmarshal(b.Bytes(), &line); err != nil || len(line.Headers) != 2 || bytes.Count(b.Bytes(), []byte("\n")) != 1 {
			t.Fatalf("%v in %q", err, b.String())
		}
		for name, want := range map[string][]byte{"key": key, "value": value} {
			got, isText := fields[name].(string)
			if encoded, ok := fields[name+"_base64"].(string); ok {
				raw, err := base64.StdEncoding.DecodeString(encoded)
				if err != nil {
					t.Fatal(err)
				}
				got, isText = string(raw), true
			}
			if isText != (want != nil) || got != string(want) {
				t.Fatalf("%s %q came back as %q", name, want, got)
			}
		}
	})
}

// BenchmarkJSON writes one record of 200 bytes with one header.
func BenchmarkJSON(b *testing.B) {
	w, err := NewWriter(io.Discard, &report.Shell{JSON: true}, "")
	if err != nil {
		b.Fatal(err)
	}
	r := &grammar.Record{Topic: "orders", Partition: 3, Offset: 123456, Timestamp: 1795618200123, Key: []byte("key-3"), Value: bytes.Repeat([]byte("x"), 200), Headers: []grammar.Header{{Key: "n", Value: []byte("1")}}}
	b.SetBytes(int64(len(r.Key) + len(r.Value)))
	for b.Loop() {
		if err := w.Write(r); err != nil {
			b.Fatal(err)
		}
	}
}
