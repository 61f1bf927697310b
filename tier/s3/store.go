package s3

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/everlog/everlog/tier/internal/s3api"
	"github.com/everlog/everlog/tier/object"
)

// store is one bucket.
type store struct {
	client *s3.Client
	bucket string
}

// wrap turns an error of the SDK into one of object's.
func wrap(op s3api.Op, conditional bool, name string, err error) error {
	var status int
	var code string
	if answer := (*awshttp.ResponseError)(nil); errors.As(err, &answer) {
		status = answer.HTTPStatusCode()
	}
	if api := smithy.APIError(nil); errors.As(err, &api) {
		code = api.ErrorCode()
	}
	return s3api.Wrap(op, conditional, name, status, code, err)
}

// conditions returns the If-None-Match and If-Match headers of a condition.
func conditions(c object.Condition) (ifNoneMatch, ifMatch *string) {
	if c.Absent() {
		ifNoneMatch = aws.String("*")
	}
	if v, ok := c.Match(); ok {
		ifMatch = aws.String(s3api.ETag(v))
	}
	return ifNoneMatch, ifMatch
}

// Put implements object.Store.
func (s *store) Put(ctx context.Context, name string, body object.Body, o object.PutOptions) (object.Version, error) {
	if err := object.CheckPut(name, o); err != nil {
		return "", err
	}
	put := s.putWhole
	if body.Size() > s3api.SingleSize {
		put = s.putParts
	}
	etag, err := put(ctx, name, body, o)
	if err != nil {
		return "", wrap(s3api.Put, !o.Condition.IsZero(), name, err)
	}
	return s3api.Version(aws.ToString(etag)), nil
}

func (s *store) putWhole(ctx context.Context, name string, body object.Body, o object.PutOptions) (*string, error) {
	if o.CRC32C == nil {
		crc, err := s3api.Checksum(body)
		if err != nil {
			return nil, err
		}
		o.CRC32C = &crc
	}
	in := &s3.PutObjectInput{
		Bucket: &s.bucket, Key: &name,
		Body: io.NewSectionReader(body, 0, body.Size()), ContentLength: aws.Int64(body.Size()),
		ChecksumCRC32C: aws.String(s3api.Header(*o.CRC32C)),
	}
	in.IfNoneMatch, in.IfMatch = conditions(o.Condition)
	out, err := s.client.PutObject(ctx, in)
	if err != nil {
		return nil, err
	}
	return out.ETag, nil
}

func (s *store) putParts(ctx context.Context, name string, body object.Body, o object.PutOptions) (*string, error) {
	upload, err := s.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &s.bucket, Key: &name, ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c,
	})
	if err != nil {
		return nil, err
	}
	parts := make([]types.CompletedPart, (body.Size()+s3api.PartSize-1)/s3api.PartSize)
	err = s3api.SendParts(ctx, body, o.CRC32C, func(ctx context.Context, part s3api.Part) error {
		number, crc := int32(part.Number), s3api.Header(part.CRC32C)
		out, err := s.client.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: &s.bucket, Key: &name, UploadId: upload.UploadId, PartNumber: &number,
			Body: part.Body, ContentLength: aws.Int64(part.Body.Size()), ChecksumCRC32C: &crc,
		})
		if err != nil {
			return err
		}
		parts[part.Number-1] = types.CompletedPart{PartNumber: &number, ETag: out.ETag, ChecksumCRC32C: &crc}
		return nil
	})
	if err == nil {
		in := &s3.CompleteMultipartUploadInput{
			Bucket: &s.bucket, Key: &name, UploadId: upload.UploadId,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		}
		in.IfNoneMatch, in.IfMatch = conditions(o.Condition)
		var out *s3.CompleteMultipartUploadOutput
		if out, err = s.client.CompleteMultipartUpload(ctx, in); err == nil {
			return out.ETag, nil
		}
	}
	abort, cancel := s3api.Aborting(ctx)
	defer cancel()
	// If this fails the parts stay until the bucket's rule for incomplete uploads removes them; the first error matters.
	_, _ = s.client.AbortMultipartUpload(abort, &s3.AbortMultipartUploadInput{Bucket: &s.bucket, Key: &name, UploadId: upload.UploadId})
	return nil, err
}

// Get implements object.Store.
func (s *store) Get(ctx context.Context, name string) ([]byte, object.Version, error) {
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: &name})
	if err != nil {
		return nil, "", wrap(s3api.Get, false, name, err)
	}
	defer out.Body.Close()
	size := int64(-1)
	if out.ContentLength != nil {
		size = *out.ContentLength
	}
	p, err := s3api.ReadWhole(out.Body, size)
	if err != nil {
		return nil, "", wrap(s3api.Get, false, name, err)
	}
	return p, s3api.Version(aws.ToString(out.ETag)), nil
}

// ReadAt implements object.Store.
func (s *store) ReadAt(ctx context.Context, name string, p []byte, position int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if position < 0 {
		return 0, wrap(s3api.Read, false, name, object.ErrRange)
	}
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: &name, Range: aws.String(s3api.Range(position, len(p)))})
	if err != nil {
		return 0, wrap(s3api.Read, false, name, err)
	}
	defer out.Body.Close()
	n, err := s3api.ReadRange(p, position, out.Body, aws.ToString(out.ContentRange))
	if err != nil && err != io.EOF {
		return n, wrap(s3api.Read, false, name, err)
	}
	return n, err
}

// Head implements object.Store.
func (s *store) Head(ctx context.Context, name string) (object.Attributes, error) {
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: &name})
	if err != nil {
		return object.Attributes{}, wrap(s3api.Head, false, name, err)
	}
	return object.Attributes{
		Name: name, Size: aws.ToInt64(out.ContentLength), Version: s3api.Version(aws.ToString(out.ETag)), Modified: aws.ToTime(out.LastModified),
	}, nil
}

// Delete implements object.Store.
func (s *store) Delete(ctx context.Context, names ...string) error {
	if len(names) == 1 {
		if _, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: &names[0]}); err != nil {
			err = wrap(s3api.Delete, false, names[0], err)
			if errors.Is(err, object.ErrNotFound) {
				return nil
			}
			return &object.DeleteError{Names: slices.Clone(names), Err: err}
		}
		return nil
	}
	failed := &object.DeleteError{}
	for batch := range slices.Chunk(names, s3api.DeleteBatch) {
		s.deleteBatch(ctx, batch, failed)
	}
	if failed.Err != nil {
		return failed
	}
	return nil
}

// deleteBatch sends one bulk deletion and adds what failed to failed.
func (s *store) deleteBatch(ctx context.Context, names []string, failed *object.DeleteError) {
	add := func(err error, names ...string) {
		if failed.Err == nil {
			failed.Err = err
		}
		failed.Names = append(failed.Names, names...)
	}
	keys := make([]types.ObjectIdentifier, len(names))
	for i := range names {
		keys[i].Key = &names[i]
	}
	out, err := s.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &s.bucket, Delete: &types.Delete{Objects: keys, Quiet: aws.Bool(true)}})
	if err != nil {
		add(wrap(s3api.Delete, false, names[0], err), names...)
		return
	}
	for _, e := range out.Errors {
		code := aws.ToString(e.Code)
		if code == "NoSuchKey" {
			continue
		}
		refusal := errors.New(code + ": " + aws.ToString(e.Message))
		add(s3api.Wrap(s3api.Delete, false, aws.ToString(e.Key), 0, code, refusal), aws.ToString(e.Key))
	}
}

// List implements object.Store. A page of the server may be shorter than what was asked for.
func (s *store) List(ctx context.Context, prefix, after string, limit int) ([]object.Attributes, error) {
	limit = s3api.Limit(limit)
	var list []object.Attributes
	in := &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: &prefix}
	if after != "" {
		in.StartAfter = &after
	}
	for len(list) < limit {
		in.MaxKeys = aws.Int32(int32(limit - len(list)))
		out, err := s.client.ListObjectsV2(ctx, in)
		if err != nil {
			return nil, wrap(s3api.List, false, prefix, err)
		}
		for _, o := range out.Contents {
			list = append(list, object.Attributes{
				Name: aws.ToString(o.Key), Size: aws.ToInt64(o.Size), Version: s3api.Version(aws.ToString(o.ETag)), Modified: aws.ToTime(o.LastModified),
			})
		}
		if !aws.ToBool(out.IsTruncated) || out.NextContinuationToken == nil {
			break
		}
		in.ContinuationToken = out.NextContinuationToken
	}
	return list, nil
}

// String implements object.Store.
func (s *store) String() string { return "s3://" + s.bucket }
