package kafka

import (
	"errors"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fill puts one or two elements into every list of a request, and something into every pointer.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; name != "Version" && name != "UnknownTags" && v.Field(i).CanSet() {
				fill(v.Field(i))
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i))
		}
	case reflect.String:
		v.SetString("name")
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
					fill(reflect.ValueOf(req).Elem())
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

func TestStatedNumbersAreBounded(t *testing.T) {
	many := []byte{0xff, 0xff, 0xff, 0xff, 0x07}
	for _, body := range [][]byte{append([]byte{1, 1}, many...), append([]byte{2, 'a', 2, 'b'}, many...)} {
		if err := wellFormed(keyApiVersions, 3, body); !errors.Is(err, errMalformed) {
			t.Errorf("% x: %v", body, err)
		}
	}
}
