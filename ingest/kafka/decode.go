package kafka

import (
	"strconv"
	"strings"
)

// kmsg believes the number of tagged fields that a flexible request states, and loops over it even when the bytes have
// ended: ten bytes can take a processor for minutes. So flexible requests are walked once by their shape before they are
// decoded, and one that states more than its bytes can hold is malformed.

// shapes are the flexible versions of the requests served: i8 to i64 and bool, uuid, s and b (compact string, bytes; may be
// null), [ … ] (compact array of structs, each ending in tags), [i8], [i32], [i64] and [s] (arrays of plain values), ? ( … ) (struct
// that may be null). A field of some versions only has them behind @, as from-to. Tags end each struct and the request.
var shapes = map[int16]string{
	1:  "i32@0-14 i32 i32 i32 i8 i32 i32 [ s@0-12 uuid@13- [ i32 i32 i64 i32 i64 i32 ] ] [ s@0-12 uuid@13- [i32] ] s",
	2:  "i32 i8 [ s [ i32 i32 i64 ] ] i32@10-",
	3:  "[ uuid@10- s ] bool bool@8-10 bool",
	8:  "s i32 s s@7- [ s@0-9 uuid@10- [ i32 i64 i32 s ] ]",
	9:  "s@0-7 [ s [i32] ]@0-7 [ s s@9- i32@9- [ s@0-9 uuid@10- [i32] ] ]@8- bool@7-",
	10: "s@0-3 i8 [s]@4-",
	11: "s i32 i32 s s s [ s b ] s@8-",
	12: "s i32 s s",
	13: "s [ s s s@5- ]",
	14: "s i32 s s s@5- s@5- [ s b ]",
	15: "[s] bool",
	16: "[s]@4- [s]@5-",
	18: "s s",
	19: "[ s i32 i16 [ i32 [i32] ] [ s s ] ] i32 bool",
	20: "[s]@0-5 [ s uuid ]@6- i32",
	21: "[ s [ i32 i64 ] ] i32",
	22: "s i32 i64@3- i16@3-",
	23: "i32 [ s [ i32 i32 i32 ] ]",
	24: "s@0-3 i64@0-3 i16@0-3 [ s [i32] ]@0-3 [ s i64 i16 bool [ s [i32] ] ]@4-",
	25: "s i64 i16 s",
	26: "s i64 i16 bool",
	27: "[ i64 i16 bool [ s [i32] ] i32 i8@2- ]",
	28: "s s i64 i16 i32 s s [ s [ i32 i64 i32 s ] ]",
	29: "i8 s i8 s s i8 i8",
	30: "[ i8 s i8 s s i8 i8 ]",
	31: "[ i8 s i8 s s i8 i8 ]",
	32: "[ i8 s [s] ] bool bool",
	33: "[ i8 s [ s s ] ] bool",
	35: "[ s [i32] ]",
	37: "[ s i32 [ [i32] ] ] i32 bool",
	42: "[s]",
	43: "i8 [ s [i32] ] i32",
	44: "[ i8 s [ s i8 s ] ] bool",
	45: "i32 bool@1- [ s [ i32 [i32] ] ]",
	46: "i32 [ s [i32] ]",
	48: "[ s i8 s ] bool",
	49: "[ [ s s ] [ s i64 bool ] ] bool",
	55: "[ s [ i32 ] ]",
	60: "bool i8@1- bool@2-",
	61: "[ s [i32] ]",
	65: "[s]",
	66: "[s] [i64] i64@1- s@2-",
	68: "s s i32 s s i32 [s] s@1- s [ uuid [i32] ]",
	69: "[s] bool",
	74: "[i8]@1-",
	75: "[ s ] i32 ?( s i32 )",
}

// field is one part of a shape.
type field struct {
	kind     string
	from, to int16 // versions
	inner    []field
}

var parsedShapes = func() map[int16][]field {
	parsed := map[int16][]field{}
	for key, text := range shapes {
		parsed[key], _ = parseShape(strings.Fields(text))
	}
	return parsed
}()

// parseShape reads fields up to the end or a closing bracket, and returns what follows that.
func parseShape(words []string) (fields []field, rest []string) {
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		if word[0] == ']' && len(word) > 0 && !strings.HasPrefix(word, "[") || word[0] == ')' {
			return fields, append([]string{word}, words...)
		}
		f := field{kind: word, to: 1<<15 - 1}
		if word == "[" || word == "?(" {
			f.inner, words = parseShape(words)
			word, words = words[0], words[1:] // the bracket, with its versions
		}
		if i := strings.IndexByte(word, '@'); i >= 0 {
			if f.inner == nil {
				f.kind = word[:i]
			}
			from, to, _ := strings.Cut(word[i+1:], "-")
			f.from = atoi(from)
			if to != "" {
				f.to = atoi(to)
			}
		}
		fields = append(fields, f)
	}
	return fields, nil
}

func atoi(s string) int16 {
	n, err := strconv.ParseInt(s, 10, 16)
	if err != nil {
		panic("shape of a request: " + err.Error()) // a constant of this file
	}
	return int16(n)
}

// wellFormed walks a flexible request; errMalformed if what it states cannot be.
func wellFormed(key, version int16, body []byte) error {
	fields, ok := parsedShapes[key]
	if !ok {
		return nil
	}
	r := wireReader{p: body}
	r.walk(fields, version)
	return r.err
}

// walk skips the fields of one struct and its tags.
func (r *wireReader) walk(fields []field, version int16) {
	for i := range fields {
		f := &fields[i]
		if version < f.from || version > f.to || r.err != nil {
			continue
		}
		switch f.kind {
		case "i8", "bool":
			r.take(1)
		case "i16":
			r.take(2)
		case "i32":
			r.take(4)
		case "i64":
			r.take(8)
		case "uuid":
			r.take(16)
		case "s":
			r.skipString()
		case "b":
			r.nullableBytes(true)
		case "[i8]":
			r.take(r.arrayLen(true, 1))
		case "[i32]":
			r.take(4 * r.arrayLen(true, 4))
		case "[i64]":
			r.take(8 * r.arrayLen(true, 8))
		case "[s]":
			for n := r.arrayLen(true, 1); n > 0 && r.err == nil; n-- {
				r.skipString()
			}
		case "[":
			for n := r.arrayLen(true, 1); n > 0 && r.err == nil; n-- {
				r.walk(f.inner, version)
			}
		case "?(":
			if b := r.take(1); b != nil && int8(b[0]) >= 0 {
				r.walk(f.inner, version)
			}
		}
	}
	r.tags(true)
}

// maxString is the length of the longest string in bytes, also of compact ones: Kafka refuses longer ones too, and the records
// of coordinators, whose formats are Kafka's, have no room for them.
const maxString = 1<<15 - 1

func (r *wireReader) skipString() {
	if len(r.nullableBytes(true)) > maxString {
		r.err, r.p = errMalformed, nil
	}
}
