package s3

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]location{
		"s3://bucket":            {bucket: "bucket"},
		"s3://bucket/":           {bucket: "bucket"},
		"s3://bucket/pre/fix/":   {bucket: "bucket", prefix: "pre/fix"},
		"s3://b-1/p?region=eu-x": {bucket: "b-1", prefix: "p", region: "eu-x"},
		"s3://bucket/p?region=r&endpoint=http%3A%2F%2F127.0.0.1%3A9000": {bucket: "bucket", prefix: "p", region: "r", endpoint: "http://127.0.0.1:9000", pathStyle: true},
		"s3://bucket?endpoint=https://s3.example.com&path-style=false":  {bucket: "bucket", endpoint: "https://s3.example.com"},
		"s3://bucket?path-style=true":                                   {bucket: "bucket", pathStyle: true},
	} {
		got, err := parse(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
		if again, err := parse(got.String()); err != nil || again != got {
			t.Errorf("%s calls itself %s, which is %+v, %v", text, got, again, err)
		}
	}
	for _, bad := range []string{"", "bucket", "http://bucket", "s3://", "s3://UPPER", "s3://b_d", "s3://key:s3cr3t@bucket", "s3://bucket?regoin=x",
		"s3://bucket?endpoint=127.0.0.1:9000", "s3://bucket?endpoint=ftp://x", "s3://bucket?endpoint=http://k:s3cr3t@x", "s3://bucket?path-style=yes",
		"s3://bucket?region=a&region=b", "s3://bucket/a//b", "s3://bucket/.hidden", "s3://bucket#x"} {
		if got, err := parse(bad); err == nil {
			t.Errorf("%q was taken for %+v", bad, got)
		} else if strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%q: the error tells the secret: %v", bad, err)
		}
	}
}

// What parses has one form, and no credentials in it.
func FuzzParse(f *testing.F) {
	f.Add("s3://bucket/pre/fix?region=eu-west-1&endpoint=http://127.0.0.1:9000&path-style=true")
	f.Add("s3://key:secret@bucket/")
	f.Add("s3://bucket/a%2Fb?endpoint=https://%41")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parse(text)
		if err != nil {
			return
		}
		again, err := parse(l.String())
		if err != nil || again != l {
			t.Errorf("%q is %+v and calls itself %q, which is %+v, %v", text, l, l, again, err)
		}
	})
}
