package kafka

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fill puts one or two elements into every list of a request, something into every pointer, and a name into every string.
func fill(v reflect.Value, name string) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), name)
	case reflect.Struct:
		for i := range v.NumField() {
			if of := v.Type().Field(i).Name; of != "Version" && of != "UnknownTags" && v.Field(i).CanSet() {
				fill(v.Field(i), name)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), name)
		}
	case reflect.String:
		v.SetString(name)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(-1)
	}
}

// The shapes must be those of kmsg: every version, empty and full, is well formed to its last byte, and no prefix is.
func TestShapesAreThoseOfKmsg(t *testing.T) {
	for key, a := range apis {
		if key == keyProduce {
			continue
		}
		for version := a.min; version <= a.max; version++ {
			for _, full := range []bool{false, true} {
				req := kmsg.RequestForKey(key)
				if full {
					fill(reflect.ValueOf(req).Elem(), "name")
				}
				req.SetVersion(version)
				if !req.IsFlexible() {
					continue
				}
				body := req.AppendTo(nil)
				if err := wellFormed(key, version, body); err != nil {
					t.Errorf("%s v%d, full %v: %v", kmsg.NameForKey(key), version, full, err)
					continue
				}
				for n := range body {
					if wellFormed(key, version, body[:n]) == nil {
						t.Errorf("%s v%d, full %v: %d of %d bytes are taken for all", kmsg.NameForKey(key), version, full, n, len(body))
						break
					}
				}
			}
		}
		req := kmsg.RequestForKey(key)
		req.SetVersion(apis[key].max)
		if _, ok := shapes[key]; !ok && req.IsFlexible() {
			t.Errorf("%s has no shape", kmsg.NameForKey(key))
		}
	}
}

// Kafka's strings have 32,767 bytes at most, compact ones too; a longer one does not fit into the records of coordinators.
func TestLongStringsAreRefused(t *testing.T) {
	for key, a := range apis {
		for version := a.min; version <= a.max; version++ {
			for length, want := range map[int]error{maxString: nil, maxString + 1: errMalformed} {
				long := strings.Repeat("x", length)
				for only := 0; ; only++ {
					n := only
					req := kmsg.RequestForKey(key)
					req.SetVersion(version)
					if key == keyProduce || !req.IsFlexible() {
						break
					}
					fill(reflect.ValueOf(req).Elem(), "")
					if !fillString(reflect.ValueOf(req).Elem(), &n, long) {
						break
					}
					body := req.AppendTo(nil)
					if len(body) < length || key == keyFetch && only == 0 {
						continue // the version has no such field, or it is a tag (the cluster's id), which nobody reads
					}
					if err := wellFormed(key, version, body); !errors.Is(err, want) {
						t.Errorf("%s v%d, string %d of %d bytes: %v", kmsg.NameForKey(key), version, only, length, err)
					}
				}
			}
		}
	}
}

// fillString gives the n-th string of a request a value; false if it has less.
func fillString(v reflect.Value, n *int, value string) bool {
	switch v.Kind() {
	case reflect.Pointer:
		return !v.IsNil() && fillString(v.Elem(), n, value)
	case reflect.Struct:
		for i := range v.NumField() {
			if of := v.Type().Field(i).Name; of != "Version" && of != "UnknownTags" && v.Field(i).CanSet() && fillString(v.Field(i), n, value) {
				return true
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			if fillString(v.Index(i), n, value) {
				return true
			}
		}
	case reflect.String:
		if *n--; *n < 0 {
			v.SetString(value)
			return true
		}
	}
	return false
}

func TestStatedNumbersAreBounded(t *testing.T) {
	many := []byte{0xff, 0xff, 0xff, 0xff, 0x07}
	for _, body := range [][]byte{append([]byte{1, 1}, many...), append([]byte{2, 'a', 2, 'b'}, many...)} {
		if err := wellFormed(keyApiVersions, 3, body); !errors.Is(err, errMalformed) {
			t.Errorf("% x: %v", body, err)
		}
	}
}
