package kafkatools

import (
	"fmt"
	"regexp"
	"strings"
)

// A step is one command of the script, with what it printed against Apache Kafka.
//
//	# a remark, kept
//	$ kafka-topics --list            a tool and its arguments; {broker} and {input} are replaced
//	$ until TEXT: kafka-topics …     again and again until it prints TEXT
//	& kafka-console-consumer …       goes on in the background, until "kill"
//	kill                             ends what is in the background, as kill -9 does
//	sorted                           before a command: the order of its lines is no part of the answer
//	< a line of its standard input, or of the file {input}
//	| a line it prints, normalised
//	exit 1                           its exit code, if not 0
//	everlog, because REASON:         the | and exit that follow are what is expected of everlog
type step struct {
	remarks    []string
	kind       string // "$", "&" or "kill"
	command    string
	sorted     bool
	input      []string
	want       answer
	differs    bool // everlog's answer is another one, on purpose
	reason     string
	onEverlog  answer
	lineNumber int
}

type answer struct {
	lines []string
	exit  int
}

func (a answer) String() string {
	var b strings.Builder
	for _, line := range a.lines {
		b.WriteString("| " + line + "\n")
	}
	if a.exit != 0 {
		fmt.Fprintf(&b, "exit %d\n", a.exit)
	}
	return b.String()
}

func parseScript(text string) ([]step, error) {
	var steps []step
	var next step
	for i, line := range strings.Split(text, "\n") {
		current := &next
		if len(steps) > 0 {
			current = &steps[len(steps)-1]
		}
		answer := &current.want
		if current.differs {
			answer = &current.onEverlog
		}
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case line == "":
		case word == "#":
			next.remarks = append(next.remarks, line)
		case line == "sorted":
			next.sorted = true
		case word == "$", word == "&", line == "kill":
			next.kind, next.command, next.lineNumber = word, rest, i+1
			steps, next = append(steps, next), step{}
		case word == "<" || line == "<":
			current.input = append(current.input, rest)
		case word == "|" || line == "|":
			answer.lines = append(answer.lines, rest)
		case word == "exit":
			if _, err := fmt.Sscan(rest, &answer.exit); err != nil {
				return nil, fmt.Errorf("line %d: %w", i+1, err)
			}
		case word == "everlog,":
			reason, ok := strings.CutPrefix(rest, "because ")
			if current.differs, current.reason = true, strings.TrimSuffix(reason, ":"); !ok || current.reason == "" {
				return nil, fmt.Errorf("line %d: a difference without a reason", i+1)
			}
		default:
			return nil, fmt.Errorf("line %d: %q is nothing that belongs here", i+1, line)
		}
	}
	return steps, nil
}

// format writes a script as parseScript reads it.
func format(steps []step) string {
	var b strings.Builder
	for i, s := range steps {
		if i > 0 && s.kind != "kill" || len(s.remarks) > 0 {
			b.WriteString("\n")
		}
		for _, remark := range s.remarks {
			b.WriteString(remark + "\n")
		}
		if s.sorted {
			b.WriteString("sorted\n")
		}
		b.WriteString(strings.TrimSpace(s.kind+" "+s.command) + "\n")
		for _, line := range s.input {
			b.WriteString("< " + line + "\n")
		}
		b.WriteString(s.want.String())
		if s.differs {
			b.WriteString("everlog, because " + s.reason + ":\n" + s.onEverlog.String())
		}
	}
	return strings.TrimPrefix(b.String(), "\n")
}

// normal are the parts of outputs that no two runs share.
var normal = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(` +`), " "},
	{regexp.MustCompile(`(console-consumer|consumer|producer|perf-producer-client|steady)(-[\w.]+?)*-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "{member}"},
	{regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`), "{uuid}"},
	{regexp.MustCompile(`\bconsole-consumer-\d+\b`), "{group}"},
	{regexp.MustCompile(`TopicId: [A-Za-z0-9_-]{22}`), "TopicId: {id}"},
	{regexp.MustCompile(`^modern [A-Za-z0-9_-]{22}`), "modern {member}"},
	{regexp.MustCompile(`\b(perf 1|1 perf) \d+`), "$1 {pid}"},
	{regexp.MustCompile(`Epoch: \d+$`), "Epoch: {n}"},
	{regexp.MustCompile(`\b1[5-9]\d{11}\b`), "{time}"},
	{regexp.MustCompile(`{time} \d+$`), "{time} {n}"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,]?\d*Z?`), "{date}"},
	{regexp.MustCompile(`^(\d+ records sent), .*`), "$1"},
	{regexp.MustCompile(`\b\d+ms\b`), "{n}ms"},
}

// noise are lines that are no part of an answer: where in its code a tool failed, and what its libraries log.
var noise = regexp.MustCompile(`^\s+at |^\s*\.\.\. \d+ more|^\[.*\] (WARN|INFO|ERROR) `)

// normalise makes the output of a tool comparable.
func normalise(output, broker string) []string {
	var lines []string
	for line := range strings.Lines(strings.ReplaceAll(output, broker, "{broker}")) {
		line = strings.TrimRight(strings.ReplaceAll(line, "\t", " "), " \r\n")
		if line == "" || noise.MatchString(line) {
			continue
		}
		for _, n := range normal {
			line = n.what.ReplaceAllString(line, n.with)
		}
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}
