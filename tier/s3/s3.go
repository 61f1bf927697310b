// Package s3 owns the driver for Amazon S3 and the servers that speak its protocol, by aws-sdk-go-v2. It is the only
// importer of that SDK. It turns the SDK's answers into tier/object's sentinels and repeats nothing: object.Retry does.
// cmd/node opens it for s3:// URLs.
//
// What it sends: unsigned payloads with a CRC-32C of our own in a header, which the server verifies and stores (a signed
// SHA-256 costs half a CPU second a GiB); bodies over 64 MiB in parts of 16 MiB, four at a time, with the condition on the
// completion; If-None-Match: * and If-Match with the ETag. It never relies on conditional deletes or copies.
package s3

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/everlog/everlog/tier/internal/s3api"
	"github.com/everlog/everlog/tier/object"
)

// location is an s3 URL taken apart.
type location struct {
	bucket, prefix   string
	region, endpoint string
	pathStyle        bool
}

// parse takes s3://bucket/prefix?region=…&endpoint=…&path-style=true|false apart. Path style is the default with an
// endpoint, virtual hosts are without.
func parse(text string) (location, error) {
	u, err := s3api.ParseLocation("s3", text, "region", "endpoint", "path-style")
	if err != nil {
		return location{}, err
	}
	if u.User != nil {
		return location{}, fmt.Errorf("an s3 URL takes no credentials; put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a role")
	}
	if err := s3api.CheckBucket(u.Host); err != nil {
		return location{}, err
	}
	l := location{bucket: u.Host, prefix: u.Path, region: u.Options["region"], endpoint: u.Options["endpoint"]}
	if l.endpoint != "" {
		e, err := url.Parse(l.endpoint)
		if err != nil || e.Scheme != "http" && e.Scheme != "https" || e.Host == "" || e.User != nil {
			return location{}, fmt.Errorf("option endpoint of an s3 URL must be http:// or https:// with a host and no credentials")
		}
	}
	l.pathStyle, err = u.Bool("path-style", l.endpoint != "")
	return l, err
}

// String returns the URL that parse would take apart into l.
func (l location) String() string {
	query := url.Values{}
	for key, value := range map[string]string{"region": l.region, "endpoint": l.endpoint} {
		if value != "" {
			query.Set(key, value)
		}
	}
	if l.pathStyle != (l.endpoint != "") {
		query.Set("path-style", fmt.Sprint(l.pathStyle))
	}
	u := url.URL{Scheme: "s3", Host: l.bucket, Path: l.prefix, RawQuery: query.Encode()}
	if l.prefix != "" {
		u.Path = "/" + l.prefix
	}
	return u.String()
}

// defaultRegion is what a server that is not AWS gets to see if nothing else is configured.
const defaultRegion = "us-east-1"

// Open returns the store at s3://bucket/prefix?region=…&endpoint=…&path-style=true|false. The bucket must exist. Credentials
// and what the URL leaves out come from where every AWS tool takes them: environment, shared files, web identity, container
// and instance roles. Open sends nothing to the bucket.
func Open(ctx context.Context, text string) (object.Store, error) {
	l, err := parse(text)
	if err != nil {
		return nil, err
	}
	options := []func(*config.LoadOptions) error{
		// A buildable client, so that AWS_CA_BUNDLE still works.
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { s3api.Tune(t) })),
		config.WithRequestChecksumCalculation(aws.RequestChecksumCalculationWhenRequired),
		config.WithResponseChecksumValidation(aws.ResponseChecksumValidationWhenRequired),
	}
	if l.region != "" {
		options = append(options, config.WithRegion(l.region))
	}
	c, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", l, err)
	}
	if c.Region == "" {
		if l.endpoint == "" {
			return nil, fmt.Errorf("open %s: no region: add ?region=… or set AWS_REGION", l)
		}
		c.Region = defaultRegion
	}
	client := s3.NewFromConfig(c, func(o *s3.Options) {
		if l.endpoint != "" {
			o.BaseEndpoint = &l.endpoint
		}
		o.UsePathStyle = l.pathStyle
		o.Retryer = aws.NopRetryer{} // a conditional Put that is sent twice can lose to itself
		o.ContinueHeaderThresholdBytes = -1
		o.DisableLogOutputChecksumValidationSkipped = true
		o.APIOptions = append(o.APIOptions, v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware)
	})
	return s3api.Named(&store{client, l.bucket}, l.prefix, l.String()), nil
}
