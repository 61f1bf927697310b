// Package servers starts the object storage servers that tests run against: MinIO, and versitygw over a directory. Both are
// programs built by e2e/tools/install; a test that needs one and cannot have it fails. Its callers are the tests of e2e.
package servers

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/everlog/everlog/e2e/harness"
)

const (
	// Key and Secret are the root credentials of every server started here.
	Key, Secret = "everlogtest", "everlogtestsecret"
	// Region is what the servers call theirs.
	Region = "us-east-1"
	// readyLimit is how long a server may take until it answers.
	readyLimit = 60 * time.Second
)

// Server is one running server on a loopback port, with its data in a directory of its own. It stops when the test ends.
type Server struct {
	*harness.Process
	t       testing.TB
	command harness.Command
	// Address is host and port.
	Address string
	// Dir holds the data. It outlives Restart.
	Dir string
	// ready is a path that answers with the status readyStatus once the server works.
	ready       string
	readyStatus int
}

// MinIO starts a MinIO on one drive, with further environment variables if given.
func MinIO(t testing.TB, env ...string) *Server {
	t.Helper()
	s := &Server{t: t, Address: harness.FreeAddress(t), Dir: t.TempDir()}
	// Its health checks pass before the first bucket can be made; a request without a signature is refused only then.
	s.ready, s.readyStatus = "/", http.StatusForbidden
	s.command = harness.Command{
		Name: "minio", Path: program(t, "minio"),
		Args: []string{"server", "--quiet", "--address", s.Address, s.Dir},
		Env: append([]string{
			"MINIO_ROOT_USER=" + Key, "MINIO_ROOT_PASSWORD=" + Secret, "MINIO_REGION=" + Region,
			"MINIO_BROWSER=off", "MINIO_UPDATE=off", "MINIO_CI_CD=on", "HOME=" + t.TempDir(),
		}, env...),
	}
	s.start()
	return s
}

// Versity starts a versitygw over a directory. Each directory in it is a bucket: see MakeBucket.
func Versity(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, Address: harness.FreeAddress(t), Dir: t.TempDir(), ready: "/health", readyStatus: http.StatusOK}
	s.command = harness.Command{
		Name: "versitygw", Path: program(t, "versitygw"),
		Args: []string{"--quiet", "--port", s.Address, "--region", Region, "--health", s.ready, "posix", s.Dir},
		Env:  []string{"ROOT_ACCESS_KEY=" + Key, "ROOT_SECRET_KEY=" + Secret},
	}
	s.start()
	return s
}

// Restart starts the server again, on the same address and data, after it was stopped or killed.
func (s *Server) Restart() {
	s.t.Helper()
	s.start()
}

func (s *Server) start() {
	s.t.Helper()
	s.command.Log = filepath.Join(s.t.TempDir(), s.command.Name+".log")
	s.Process = harness.Start(s.t, s.command)
	harness.Until(s.t, readyLimit, s.command.Name+" is ready", func() error {
		s.MustRun()
		answer, err := http.Get("http://" + s.Address + s.ready)
		if err != nil {
			return err
		}
		answer.Body.Close()
		if answer.StatusCode != s.readyStatus {
			return fmt.Errorf("%s answers %s, not %d", s.ready, answer.Status, s.readyStatus)
		}
		return nil
	})
}

// MakeBucket makes a bucket in a versitygw that runs here: the s3 driver never makes one.
func (s *Server) MakeBucket(bucket string) {
	s.t.Helper()
	if err := os.Mkdir(filepath.Join(s.Dir, bucket), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

// MinIOURL is the URL of a place in this server for tier/minio. It holds the secret.
func (s *Server) MinIOURL(bucket, prefix string) string {
	u := url.URL{Scheme: "minio", User: url.UserPassword(Key, Secret), Host: s.Address, Path: "/" + bucket + "/" + prefix}
	return u.String()
}

// S3URL is the URL of a place in this server for tier/s3. It needs the credentials in the environment: see Env.
func (s *Server) S3URL(bucket, prefix string) string {
	query := url.Values{"endpoint": {"http://" + s.Address}, "region": {Region}}
	u := url.URL{Scheme: "s3", Host: bucket, Path: "/" + prefix, RawQuery: query.Encode()}
	return u.String()
}

// Env returns the environment in which tier/s3 finds the credentials, and no others.
func (s *Server) Env() []string {
	return []string{
		"AWS_ACCESS_KEY_ID=" + Key, "AWS_SECRET_ACCESS_KEY=" + Secret, "AWS_SESSION_TOKEN=", "AWS_PROFILE=",
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true",
	}
}

// program returns the path of a program that e2e/tools/install builds.
func program(t testing.TB, name string) string {
	t.Helper()
	cache, err := os.UserCacheDir() // $XDG_CACHE_HOME, else ~/.cache
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cache, "everlog-tools", "bin", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is not there: run e2e/tools/install, which builds it", path)
	}
	return path
}
