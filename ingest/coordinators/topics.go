package coordinators

import (
	"unicode/utf16"

	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/tier/record"
)

// topics is a metadata image as groups see it.
type topics struct{ img *metadata.Image }

func topicsOf(img *metadata.Image) topics { return topics{img} }

// ByName implements group.Topics.
func (t topics) ByName(name string) (id [16]byte, partitions int32, ok bool) {
	if found := t.img.Topic(name); found != nil {
		return found.ID, int32(len(found.Partitions)), true
	}
	return id, 0, false
}

// ByID implements group.Topics.
func (t topics) ByID(id [16]byte) (name string, partitions int32, ok bool) {
	if found := t.img.TopicByID(record.TopicID(id)); found != nil {
		return found.Name, int32(len(found.Partitions)), true
	}
	return "", 0, false
}

// Names implements group.Topics.
func (t topics) Names(yield func(string) bool) {
	for found := range t.img.Topics() {
		if !yield(found.Name) {
			return
		}
	}
}

func utf16Of(s string) []uint16 { return utf16.Encode([]rune(s)) }
