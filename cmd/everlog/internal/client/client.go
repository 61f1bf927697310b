// Package client holds the commands that speak the Kafka protocol and so work against any Kafka cluster: topic, group, txn,
// produce, consume, bench. It knows nothing of the bucket and starts no broker. package main adds its commands to the tree.
package client

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/everlog/everlog/cmd/everlog/internal/connect"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

// Commands are the client half of the command tree.
func Commands(shell *report.Shell) []*cobra.Command {
	return []*cobra.Command{topicCommand(shell), groupCommand(shell), txnCommand(shell), produceCommand(shell), consumeCommand(shell), benchCommand(shell)}
}

// kafka is what every command here has: where to print, and where the cluster is.
type kafka struct {
	shell *report.Shell
	flags *connect.Flags
}

// session is an open administration client with a time limit.
type session struct {
	kafka
	client *kgo.Client
	admin  *kadm.Client
	ctx    context.Context // ends with this command; a field because every step of the command needs it
}

// with connects, runs fn within --timeout, and disconnects.
func (k kafka) with(ctx context.Context, fn func(s *session) error) error {
	client, err := k.flags.Client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	limited, cancel := context.WithTimeout(ctx, k.flags.Timeout)
	defer cancel()
	return fn(&session{kafka: k, client: client, admin: k.flags.AdminOf(client), ctx: limited})
}

// topics loads the named topics, or all of them, and fails for one that does not exist.
func (s *session) topics(names ...string) (kadm.TopicDetails, error) {
	found, err := s.admin.ListTopicsWithInternal(s.ctx, names...)
	if err != nil {
		return nil, s.flags.Explain(err, "list topics", "")
	}
	for _, t := range found.Sorted() {
		if t.Err != nil && len(names) > 0 {
			return nil, s.unknownTopic(t.Topic, t.Err)
		}
	}
	return found, nil
}

// unknownTopic explains why a topic cannot be used, with the name that may have been meant.
func (s *session) unknownTopic(name string, cause error) error {
	err := s.flags.Explain(cause, topicNamed(name), "")
	e, ok := err.(*report.Error)
	if !ok || e.Code != report.NotFound {
		return err
	}
	all, listErr := s.admin.ListTopics(s.ctx)
	if listErr != nil {
		return err
	}
	if hint := report.DidYouMean(name, all.Names()); hint != "" {
		e.Hint = hint
	}
	return e
}

func topicNamed(name string) string { return `topic "` + name + `"` }

// matching keeps the names that match any of the patterns (path.Match), or all without a pattern.
func matching(names, patterns []string) ([]string, error) {
	if len(patterns) == 0 {
		return names, nil
	}
	var kept []string
	for _, pattern := range patterns {
		if _, err := path.Match(pattern, ""); err != nil {
			return nil, report.Usagef("pattern %q is not valid", pattern)
		}
	}
	for _, name := range names {
		if slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(p, name); return ok }) {
			kept = append(kept, name)
		}
	}
	return kept, nil
}

// outcome is what became of one item of a command that takes several.
type outcome struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Kafka  string `json:"kafka_error,omitempty"`
	Reason string `json:"error,omitempty"`
	err    error
}

// outcomes are those of a whole command. noun says what the items are; "" is topic.
type outcomes struct {
	V    int       `json:"v"`
	List []outcome `json:"items"`

	noun string
}

// Items are the lines of jsonl.
func (o *outcomes) Items() []any {
	items := make([]any, len(o.List))
	for i := range o.List {
		items[i] = o.List[i]
	}
	return items
}

func (o *outcomes) add(name, status string, err error) {
	item := outcome{Name: name, Status: status, err: err}
	if err != nil {
		item.Status, item.Reason = "failed", err.Error()
		if e, ok := err.(*report.Error); ok {
			item.Kafka, item.Reason = e.Kafka, e.What
		}
	}
	o.List = append(o.List, item)
}

// print shows the outcomes and returns what the process should end with: the one error of a single item, or Partial.
func (o *outcomes) print(shell *report.Shell) error {
	o.V = 1
	noun := cmp.Or(o.noun, "topic")
	slices.SortFunc(o.List, func(a, b outcome) int { return strings.Compare(a.Name, b.Name) })
	var failed []outcome
	for _, item := range o.List {
		if item.err != nil {
			failed = append(failed, item)
		}
	}
	if len(failed) == 1 && len(o.List) == 1 && !shell.Printer().Structured() {
		return failed[0].err
	}
	err := shell.Printer().Print(o, func(t *report.Table) {
		t.Row(strings.ToUpper(noun), "STATUS")
		for _, item := range o.List {
			status := item.Status
			if item.err != nil {
				status += ": " + item.err.Error()
			}
			t.Row(item.Name, status)
		}
	})
	switch {
	case err != nil || len(failed) == 0:
		return err
	case len(failed) == 1 && len(o.List) == 1:
		return failed[0].err
	case len(failed) == len(o.List):
		return report.Errorf(report.CodeOf(failed[0].err), "all %d %ss failed", len(failed), noun)
	default:
		return report.Errorf(report.Partial, "%d of %d %ss failed", len(failed), len(o.List), noun)
	}
}

// completionTimeout is how long a person who pressed Tab waits for a cluster that does not answer.
const completionTimeout = 1500 * time.Millisecond

// completeTopics offers topic names to the shell's completion.
func (k kafka) completeTopics(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return k.complete(cmd, args, prefix, func(ctx context.Context, admin *kadm.Client) ([]string, error) {
		topics, err := admin.ListTopics(ctx)
		return topics.Names(), err
	})
}

// complete offers the names that a cluster lists, and nothing if it does not answer soon.
func (k kafka) complete(cmd *cobra.Command, args []string, prefix string, list func(context.Context, *kadm.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	k.flags.Timeout = completionTimeout
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	admin, err := k.flags.Admin(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer admin.Close()
	all, err := list(ctx, admin)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, name := range all {
		if strings.HasPrefix(name, prefix) && !slices.Contains(args, name) {
			names = append(names, name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeGroups completes the first argument of a command on groups.
func (k kafka) completeGroups(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 && cmd.Name() == "seek" {
		return k.completeTopics(cmd, args, prefix)
	}
	return k.complete(cmd, args, prefix, func(ctx context.Context, admin *kadm.Client) ([]string, error) {
		groups, err := admin.ListGroups(ctx)
		return groups.Groups(), err
	})
}

// completeTopic completes the first argument only.
func (k kafka) completeTopic(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return k.completeTopics(cmd, args, prefix)
}

// explainCode is Explain of an error code in a response; nil for 0.
func (s *session) explainCode(code int16, thing string, message *string) error {
	text := ""
	if message != nil {
		text = *message
	}
	return s.flags.Explain(kerr.ErrorForCode(code), thing, text)
}
