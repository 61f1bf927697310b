package minio

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"

	"github.com/minio/minio-go/v7"

	"github.com/everlog/everlog/tier/internal/s3api"
	"github.com/everlog/everlog/tier/object"
)

// store is one bucket.
type store struct {
	core   *minio.Core
	bucket string
}

// wrap turns an error of the SDK into one of object's. An error without a status is one of the connection.
func wrap(op s3api.Op, conditional bool, name string, err error) error {
	var answer minio.ErrorResponse
	errors.As(err, &answer)
	return s3api.Wrap(op, conditional, name, answer.StatusCode, answer.Code, err)
}

// crcHeader is sent as the SDK sends an amz header of the user: signed, and not as metadata.
const crcHeader = "x-amz-checksum-crc32c"

func condition(o *minio.PutObjectOptions, c object.Condition) {
	if c.Absent() {
		o.SetMatchETagExcept("*")
	}
	if v, ok := c.Match(); ok {
		o.SetMatchETag(string(v))
	}
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
	return s3api.Version(etag), nil
}

func (s *store) putWhole(ctx context.Context, name string, body object.Body, o object.PutOptions) (string, error) {
	if o.CRC32C == nil {
		crc, err := s3api.Checksum(body)
		if err != nil {
			return "", err
		}
		o.CRC32C = &crc
	}
	options := minio.PutObjectOptions{DisableContentSha256: true, UserMetadata: map[string]string{crcHeader: s3api.Header(*o.CRC32C)}}
	condition(&options, o.Condition)
	info, err := s.core.PutObject(ctx, s.bucket, name, io.NewSectionReader(body, 0, body.Size()), body.Size(), "", "", options)
	return info.ETag, err
}

func (s *store) putParts(ctx context.Context, name string, body object.Body, o object.PutOptions) (string, error) {
	upload, err := s.core.NewMultipartUpload(ctx, s.bucket, name, minio.PutObjectOptions{
		UserMetadata: map[string]string{"x-amz-checksum-algorithm": "CRC32C"},
	})
	if err != nil {
		return "", err
	}
	parts := make([]minio.CompletePart, (body.Size()+s3api.PartSize-1)/s3api.PartSize)
	err = s3api.SendParts(ctx, body, o.CRC32C, func(ctx context.Context, part s3api.Part) error {
		crc := s3api.Header(part.CRC32C)
		header := http.Header{}
		header.Set(crcHeader, crc)
		sent, err := s.core.PutObjectPart(ctx, s.bucket, name, upload, part.Number, part.Body, part.Body.Size(),
			minio.PutObjectPartOptions{DisableContentSha256: true, CustomHeader: header})
		if err != nil {
			return err
		}
		parts[part.Number-1] = minio.CompletePart{PartNumber: part.Number, ETag: sent.ETag, ChecksumCRC32C: crc}
		return nil
	})
	if err == nil {
		var options minio.PutObjectOptions
		condition(&options, o.Condition)
		var info minio.UploadInfo
		if info, err = s.core.CompleteMultipartUpload(ctx, s.bucket, name, upload, parts, options); err == nil {
			return info.ETag, nil
		}
	}
	abort, cancel := s3api.Aborting(ctx)
	defer cancel()
	// If this fails the parts stay until the server's clean-up of old uploads; the first error matters.
	_ = s.core.AbortMultipartUpload(abort, s.bucket, name, upload)
	return "", err
}

// Get implements object.Store.
func (s *store) Get(ctx context.Context, name string) ([]byte, object.Version, error) {
	body, info, _, err := s.core.GetObject(ctx, s.bucket, name, minio.GetObjectOptions{})
	if err != nil {
		return nil, "", wrap(s3api.Get, false, name, err)
	}
	defer body.Close()
	p, err := s3api.ReadWhole(body, info.Size)
	if err != nil {
		return nil, "", wrap(s3api.Get, false, name, err)
	}
	return p, s3api.Version(info.ETag), nil
}

// ReadAt implements object.Store.
func (s *store) ReadAt(ctx context.Context, name string, p []byte, position int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if position < 0 {
		return 0, wrap(s3api.Read, false, name, object.ErrRange)
	}
	var options minio.GetObjectOptions
	options.Set("Range", s3api.Range(position, len(p)))
	body, _, header, err := s.core.GetObject(ctx, s.bucket, name, options)
	if err != nil {
		return 0, wrap(s3api.Read, false, name, err)
	}
	defer body.Close()
	n, err := s3api.ReadRange(p, position, body, header.Get("Content-Range"))
	if err != nil && err != io.EOF {
		return n, wrap(s3api.Read, false, name, err)
	}
	return n, err
}

// Head implements object.Store.
func (s *store) Head(ctx context.Context, name string) (object.Attributes, error) {
	info, err := s.core.StatObject(ctx, s.bucket, name, minio.StatObjectOptions{})
	if err != nil {
		return object.Attributes{}, wrap(s3api.Head, false, name, err)
	}
	return object.Attributes{Name: name, Size: info.Size, Version: s3api.Version(info.ETag), Modified: info.LastModified}, nil
}

// Delete implements object.Store.
func (s *store) Delete(ctx context.Context, names ...string) error {
	failed := &object.DeleteError{}
	add := func(name string, err error) {
		err = wrap(s3api.Delete, false, name, err)
		if errors.Is(err, object.ErrNotFound) {
			return
		}
		if failed.Err == nil {
			failed.Err = err
		}
		failed.Names = append(failed.Names, name)
	}
	if len(names) == 1 {
		if err := s.core.RemoveObject(ctx, s.bucket, names[0], minio.RemoveObjectOptions{}); err != nil {
			add(names[0], err)
		}
	} else {
		for batch := range slices.Chunk(names, s3api.DeleteBatch) {
			s.deleteBatch(ctx, batch, add)
		}
	}
	if failed.Err != nil {
		return failed
	}
	return nil
}

// deleteBatch sends one bulk deletion and reports every name that the server did not confirm.
func (s *store) deleteBatch(ctx context.Context, names []string, failed func(string, error)) {
	keys := func(yield func(minio.ObjectInfo) bool) {
		for _, name := range names {
			if !yield(minio.ObjectInfo{Key: name}) {
				return
			}
		}
	}
	gone := make(map[string]bool, len(names))
	var first error
	results, err := s.core.RemoveObjectsWithIter(ctx, s.bucket, keys, minio.RemoveObjectsOptions{})
	if err != nil {
		first = err
	} else {
		for r := range results {
			if r.Err == nil {
				gone[r.ObjectName] = true
			} else if first == nil {
				first = r.Err
			}
		}
	}
	if first == nil {
		first = ctx.Err()
	}
	if first == nil {
		first = errors.New("not confirmed by the server")
	}
	for _, name := range names {
		if !gone[name] {
			failed(name, first)
		}
	}
}

// List implements object.Store.
func (s *store) List(ctx context.Context, prefix, after string, limit int) ([]object.Attributes, error) {
	limit = s3api.Limit(limit)
	var list []object.Attributes
	owner := false
	options := minio.ListObjectsOptions{Prefix: prefix, StartAfter: after, MaxKeys: limit, Recursive: true, FetchOwner: &owner}
	for o := range s.core.ListObjectsIter(ctx, s.bucket, options) {
		if o.Err != nil {
			return nil, wrap(s3api.List, false, prefix, o.Err)
		}
		list = append(list, object.Attributes{Name: o.Key, Size: o.Size, Version: s3api.Version(o.ETag), Modified: o.LastModified})
		if len(list) == limit {
			return list, nil
		}
	}
	if err := ctx.Err(); err != nil { // then the iterator just stops
		return nil, wrap(s3api.List, false, prefix, err)
	}
	return list, nil
}

// String implements object.Store.
func (s *store) String() string { return "minio://" + s.bucket }
