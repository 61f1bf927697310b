package s3api

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/everlog/everlog/tier/object"
)

// Location is a store URL taken apart.
type Location struct {
	// User holds the access key and the secret, or nil.
	User *url.Userinfo
	// Host is what stands between the slashes: a bucket for s3, host and port for minio.
	Host string
	// Path has no slash at either end.
	Path string
	// Options are the query parameters.
	Options map[string]string
}

// ParseLocation takes a URL of the scheme apart. Every query parameter must be in options, each at most once.
func ParseLocation(scheme, text string, options ...string) (Location, error) {
	u, err := url.Parse(text)
	if err != nil {
		// The error of url.Parse repeats the text, and with it a secret.
		return Location{}, fmt.Errorf("object store URL is not a URL; write %s://…", scheme)
	}
	if u.Scheme != scheme || u.Host == "" || u.Opaque != "" || u.Fragment != "" {
		return Location{}, fmt.Errorf("object store URL %s must begin with %s:// and a host or bucket, and have no fragment", place(u), scheme)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Location{}, fmt.Errorf("object store URL %s: malformed options after the question mark", place(u))
	}
	l := Location{User: u.User, Host: u.Host, Path: strings.Trim(u.Path, "/"), Options: map[string]string{}}
	for _, key := range slices.Sorted(maps.Keys(query)) {
		if !slices.Contains(options, key) || len(query[key]) != 1 {
			return Location{}, fmt.Errorf("object store URL %s: option %q is unknown or given twice; options are %s", place(u), key, strings.Join(options, ", "))
		}
		l.Options[key] = query[key][0]
	}
	if l.Path != "" {
		if err := object.CheckName(l.Path); err != nil {
			return Location{}, fmt.Errorf("object store URL %s: path: %w", place(u), err)
		}
	}
	return l, nil
}

// place is what may be shown of a URL: neither credentials nor options, which may hold a secret by mistake.
func place(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// Bool returns a boolean option.
func (l Location) Bool(key string, otherwise bool) (bool, error) {
	switch v := l.Options[key]; v {
	case "":
		return otherwise, nil
	case "true":
		return true, nil
	case "false":
		return false, nil
	default:
		return false, fmt.Errorf("option %s is %q; write true or false", key, v)
	}
}

var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// CheckBucket says what is wrong with a bucket's name, or nil.
func CheckBucket(name string) error {
	if !bucketName.MatchString(name) || strings.Contains(name, "..") || net.ParseIP(name) != nil {
		return fmt.Errorf("bucket %q: must be 3 to 63 lower-case letters, digits, hyphens and single dots, and no IP address", name)
	}
	return nil
}

// Tune sets what both drivers want of a transport.
func Tune(t *http.Transport) {
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 256, 64
	// Shorter than servers wait: a PUT that meets a connection just being closed has an unknown outcome.
	t.IdleConnTimeout = 15 * time.Second
	// Headers and a small body leave in one write: MinIO holds the key's lock while it waits for the body.
	t.WriteBufferSize, t.ReadBufferSize = 64<<10, 64<<10
	t.DisableCompression = true
	t.ForceAttemptHTTP2 = false
}

// Named returns s below prefix, under the given URL.
func Named(s object.Store, prefix, url string) object.Store {
	return &named{object.Prefix(s, prefix), url}
}

type named struct {
	object.Store
	url string
}

func (n *named) String() string { return n.url }
