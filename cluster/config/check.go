package config

import (
	"regexp"
	"strconv"
	"strings"
)

// check returns why a value that has the right type is still refused, or "". It gets the trimmed text.
type check func(value string) (reason string)

// parse validates one value against its key and returns the canonical text (trimmed; lists without blanks).
func (k *Key) parse(value string) (string, error) {
	if k.Type != Password && k.Type != String {
		value = strings.TrimSpace(value)
	}
	if reason := typeFault(k.Type, value); reason != "" {
		return "", invalidValue(k.Name, value, reason)
	}
	if k.Type == List {
		items := splitList(value)
		seen := make(map[string]bool, len(items))
		for _, item := range items {
			switch {
			case item == "":
				return "", invalid("Configuration '" + k.Name + "' values must not be empty.")
			case seen[item] && k.check != nil:
				return "", invalid("Configuration '" + k.Name + "' values must not be duplicated.")
			}
			seen[item] = true
		}
		value = strings.Join(items, ",")
	}
	if k.check != nil {
		if reason := k.check(value); reason != "" {
			return "", invalidValue(k.Name, value, reason)
		}
	}
	return value, nil
}

func typeFault(t Type, value string) string {
	bits := 0
	switch t {
	case Boolean:
		if !strings.EqualFold(value, "true") && !strings.EqualFold(value, "false") {
			return "Expected value to be either true or false"
		}
	case Double:
		if _, err := strconv.ParseFloat(value, 64); err != nil {
			return "Not a number of type DOUBLE"
		}
	case Short:
		bits = 16
	case Int:
		bits = 32
	case Long:
		bits = 64
	}
	if bits != 0 {
		if _, err := strconv.ParseInt(value, 10, bits); err != nil {
			return "Not a number of type " + t.String()
		}
	}
	return ""
}

func splitList(value string) []string {
	if strings.TrimSpace(value) == "" {
		return nil
	}
	items := strings.Split(value, ",")
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
	}
	return items
}

func atLeast(low int64) check { return between(low, 1<<63-1) }

func between(low, high int64) check {
	return func(value string) string {
		n, _ := strconv.ParseInt(value, 10, 64)
		switch {
		case n < low:
			return "Value must be at least " + strconv.FormatInt(low, 10)
		case n > high:
			return "Value must be no more than " + strconv.FormatInt(high, 10)
		}
		return ""
	}
}

func ratio(value string) string {
	f, _ := strconv.ParseFloat(value, 64)
	switch {
	case !(f >= 0): // also NaN
		return "Value must be at least 0"
	case f > 1:
		return "Value must be no more than 1"
	}
	return ""
}

func oneOf(words ...string) check {
	return func(value string) string {
		for _, w := range words {
			if value == w {
				return ""
			}
		}
		return "String must be one of: " + strings.Join(words, ", ")
	}
}

func listOf(words ...string) check {
	one := oneOf(words...)
	return func(value string) string {
		for _, item := range splitList(value) {
			if reason := one(item); reason != "" {
				return reason
			}
		}
		return ""
	}
}

func notEmpty(value string) string {
	if value == "" {
		return "String must be non-empty"
	}
	return ""
}

func gzipLevel(value string) string {
	if n, _ := strconv.Atoi(value); n != -1 && (n < 1 || n > 9) {
		return "Value must be between 1 and 9 or equal to -1"
	}
	return ""
}

// retentionTime is KafkaConfig's rule for log.retention.*: 0 is no retention at all and is refused.
func retentionTime(value string) string {
	if n, _ := strconv.ParseInt(value, 10, 64); n == 0 || n < -1 {
		return "Value must be unlimited (-1) or, equal or greater than 1"
	}
	return ""
}

var throttledReplica = regexp.MustCompile(`^[0-9]+:[0-9]+$`)

func throttledReplicas(value string) string {
	if value == "*" {
		return ""
	}
	for _, item := range splitList(value) {
		if !throttledReplica.MatchString(item) {
			return "must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."
		}
	}
	return ""
}

// didYouMean returns " (did you mean x?)" for the nearest known name, or "". Translate maps a name of the other kind
// (log.retention.ms where a topic setting is wanted) to the right one.
func didYouMean(name string, known map[string]*Key, translate func(string) string) string {
	best := translate(name)
	if best == "" {
		// A third of the name may be wrong; beyond that a suggestion misleads more than it helps.
		distance := len(name)/3 + 1
		for _, k := range sorted(known) {
			if d := editDistance(strings.ToLower(name), k.Name); d < distance {
				best, distance = k.Name, d
			}
		}
	}
	if best == "" {
		return ""
	}
	return " (did you mean " + best + "?)"
}

// editDistance is the optimal string alignment distance: insert, delete, replace, and swap of two neighbours, one each.
func editDistance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}

// topicNameOf returns the topic setting that a broker setting is the synonym of.
func topicNameOf(broker string) string {
	for _, k := range topicTable {
		for _, s := range fallbacks(k.Synonym) {
			if s.name == broker {
				return k.Name
			}
		}
	}
	return ""
}

// brokerNameOf returns the broker synonym of a topic setting.
func brokerNameOf(topic string) string {
	if k, ok := topicKeys[topic]; ok {
		return k.Synonym
	}
	return ""
}
