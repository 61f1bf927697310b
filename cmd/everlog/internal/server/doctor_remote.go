package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/everlog/everlog/cmd/everlog/internal/connect"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/segment"
)

// storeWithin is how long the store may take for all checks together.
const storeWithin = 60 * time.Second

// store tries every right on the store that a broker needs, each by itself, then its conditional writes.
func (f *findings) store(ctx context.Context, open Open, url string) {
	limited, cancel := context.WithTimeout(ctx, storeWithin)
	defer cancel()
	s, err := open(limited, url)
	if err != nil {
		f.add("store", failed, storeHint(err), "%s: %v", showURL(url), err)
		return
	}
	if closer, ok := s.(io.Closer); ok {
		defer closer.Close()
	}
	name := "doctor/" + segment.NewUUID()
	body := []byte("everlog doctor")
	steps := []struct {
		check string
		run   func() error
	}{
		{"store: write", func() error { _, err := s.Put(limited, name, object.Bytes(body), object.PutOptions{}); return err }},
		{"store: read", func() error { return readBack(limited, s, name, body) }},
		{"store: range read", func() error {
			p := make([]byte, 3)
			_, err := s.ReadAt(limited, name, p, 8)
			if err == nil && !bytes.Equal(p, body[8:11]) {
				err = errors.New("it gave other bytes than were written")
			}
			return err
		}},
		{"store: list", func() error { return listed(limited, s, name) }},
		{"store: delete", func() error { return s.Delete(limited, name) }},
		{"store: conditional writes", func() error { return object.Probe(limited, s) }},
	}
	for _, step := range steps {
		began := time.Now()
		if err := step.run(); err != nil {
			f.add(step.check, failed, storeHint(err), "%s: %v", s, err)
			if step.check == "store: write" {
				return
			}
			continue
		}
		f.add(step.check, fine, "", "%.1f ms", ms(time.Since(began)))
	}
}

func readBack(ctx context.Context, s object.Store, name string, want []byte) error {
	got, _, err := s.Get(ctx, name)
	if err == nil && !bytes.Equal(got, want) {
		err = errors.New("it gave other bytes than were written")
	}
	return err
}

func listed(ctx context.Context, s object.Store, name string) error {
	list, err := s.List(ctx, "doctor/", "", 0)
	if err != nil {
		return err
	}
	for _, a := range list {
		if a.Name == name {
			return nil
		}
	}
	return errors.New("the listing does not show what was just written")
}

func storeHint(err error) string {
	switch {
	case errors.Is(err, object.ErrDenied):
		return "grant s3:GetObject, PutObject, DeleteObject and AbortMultipartUpload on the prefix and s3:ListBucket on the bucket"
	case errors.Is(err, object.ErrUnsupported):
		return "everlog needs If-None-Match and If-Match on PUT; use a store that honours them"
	case errors.Is(err, object.ErrUnavailable):
		return "check the URL, the endpoint and the network"
	}
	return ""
}

// brokers dials every broker of a cluster where it says it is.
func (f *findings) brokers(ctx context.Context, flags *connect.Flags) {
	admin, err := flags.Admin(ctx)
	if err != nil {
		f.add("brokers", failed, "", "%v", err)
		return
	}
	defer admin.Close()
	limited, cancel := context.WithTimeout(ctx, flags.Timeout)
	defer cancel()
	meta, err := admin.BrokerMetadata(limited)
	if err != nil {
		f.add("brokers", failed, "", "%v", flags.Explain(err, "metadata", ""))
		return
	}
	f.add("brokers", fine, "", "%d in cluster %s, controller %d", len(meta.Brokers), meta.Cluster, meta.Controller)
	for _, b := range meta.Brokers {
		check := fmt.Sprintf("broker %d", b.NodeID)
		address := net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
		began := time.Now()
		conn, err := (&net.Dialer{}).DialContext(limited, "tcp", address)
		if err != nil {
			f.add(check, failed, "the broker advertises this address; set its advertise (advertised.listeners in Kafka) to one that can be dialled from here", "%s: %v", address, err)
			continue
		}
		_ = conn.Close()
		f.add(check, fine, "", "%s answers in %.1f ms", address, ms(time.Since(began)))
	}
}
