package minio

import (
	"strings"
	"testing"
)

func env(pairs ...string) func(string) string {
	return func(key string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == key {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestParse(t *testing.T) {
	root := env("MINIO_ROOT_USER", "root", "MINIO_ROOT_PASSWORD", "password", "AWS_ACCESS_KEY_ID", "aws", "AWS_SECRET_ACCESS_KEY", "aws-secret")
	aws := env("MINIO_ROOT_USER", "half", "AWS_ACCESS_KEY_ID", "aws", "AWS_SECRET_ACCESS_KEY", "aws-secret")
	for _, c := range []struct {
		text   string
		getenv func(string) string
		want   location
		shown  string
	}{
		{"minio://k:s%2F%40@host:9000/bucket/pre/fix/", env(), location{host: "host:9000", bucket: "bucket", prefix: "pre/fix", key: "k", secret: "s/@"}, "minio://host:9000/bucket/pre/fix"},
		{"minio://host/bucket?secure=true", root, location{host: "host", bucket: "bucket", key: "root", secret: "password", secure: true}, "minio://host/bucket?secure=true"},
		{"minio://host/bucket?region=here", aws, location{host: "host", bucket: "bucket", key: "aws", secret: "aws-secret", region: "here"}, "minio://host/bucket?region=here"},
		{"minio://k:s@host/bucket", root, location{host: "host", bucket: "bucket", key: "k", secret: "s"}, "minio://host/bucket"},
	} {
		got, err := parse(c.text, c.getenv)
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.text, got, err, c.want)
		}
		if got.String() != c.shown {
			t.Errorf("%s calls itself %s, want %s", c.text, got, c.shown)
		}
	}
	for _, bad := range []string{"", "minio://", "minio://k:s3cr3t@host", "minio://k:s3cr3t@host/", "minio://k:s3cr3t@host/UPPER", "minio://k@host/bucket", "minio://:s3cr3t@host/bucket",
		"minio://k:s3cr3t@host/bucket?secure=1", "minio://k:s3cr3t@host/bucket?tls=true", "minio://k:s3cr3t@host/bucket//p", "s3://k:s3cr3t@host/bucket"} {
		if got, err := parse(bad, root); err == nil {
			t.Errorf("%q was taken for %+v", bad, got)
		} else if strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%q: the error tells the secret: %v", bad, err)
		}
	}
	if _, err := parse("minio://host/bucket", env()); err == nil || !strings.Contains(err.Error(), "MINIO_ROOT_USER") {
		t.Errorf("without credentials: %v, want what to set", err)
	}
}

// What parses has one form, which tells no secret.
func FuzzParse(f *testing.F) {
	f.Add("minio://key:s3cr3t@host:9000/bucket/pre/fix?secure=true&region=x")
	f.Add("minio://host/bucket")
	keys := env("MINIO_ROOT_USER", "root", "MINIO_ROOT_PASSWORD", "password")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parse(text, keys)
		if err != nil {
			return
		}
		again, err := parse(l.String(), env("MINIO_ROOT_USER", l.key, "MINIO_ROOT_PASSWORD", l.secret))
		if err != nil || again != l {
			t.Errorf("%q is %+v and calls itself %q, which is %+v, %v", text, l, l, again, err)
		}
	})
}
