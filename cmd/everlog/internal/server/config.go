package server

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

func (p program) config() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Show, check and explain a broker's configuration"}
	cmd.AddCommand(p.configPrint(), p.configCheck(), p.configExplain())
	return cmd
}

// settingDoc is one line of config print.
type settingDoc struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Origin string `json:"origin"`
}

type settingsDoc struct {
	V        int          `json:"v"`
	Settings []settingDoc `json:"settings"`
}

// Items are the lines of jsonl.
func (d *settingsDoc) Items() []any {
	items := make([]any, len(d.Settings))
	for i := range d.Settings {
		items[i] = d.Settings[i]
	}
	return items
}

const hidden = "(hidden)"

func (p program) configPrint() *cobra.Command {
	var s sources
	var all bool
	cmd := &cobra.Command{
		Use: "print", Short: "Print every value and where it comes from", Args: report.Args(0, 0, ""),
		Example: "  everlog config print --config everlog.yaml\n  everlog config print --set log.retention.ms=1000 --all",
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := s.read(cmd, p, nil)
			if err != nil {
				return err
			}
			if _, err := l.settings(); err != nil {
				return err
			}
			doc, err := l.doc(all)
			if err != nil {
				return err
			}
			return p.shell.Printer().Print(doc, func(t *report.Table) {
				t.Row("SETTING", "VALUE", "ORIGIN")
				for _, d := range doc.Settings {
					t.Row(d.Name, d.Value, d.Origin)
				}
			})
		},
	}
	s.add(cmd, true, nil)
	cmd.Flags().BoolVar(&all, "all", false, "also Kafka's broker settings that have their default")
	return cmd
}

// doc lists the settings: everlog's own, then those by Kafka's names that are set, or all.
func (l *layers) doc(all bool) (*settingsDoc, error) {
	doc := &settingsDoc{V: 1}
	for _, k := range keys {
		v := l.own[k.name]
		if k.name == "store" {
			v.text = showURL(v.text)
		}
		doc.Settings = append(doc.Settings, settingDoc{k.name, v.text, v.origin})
	}
	given := map[string]string{}
	for name, v := range l.kafka {
		given[name] = v.text
	}
	broker, err := config.ParseBroker(given)
	if err != nil {
		return nil, err
	}
	names := brokerNames()
	for name := range given {
		if !slices.Contains(names, name) {
			names = append(names, name) // of a family, as listener.name.x
		}
	}
	slices.Sort(names)
	for _, name := range names {
		v, set := l.kafka[name]
		if !set && !all {
			continue
		}
		if !set {
			text, _ := broker.Lookup(name)
			v = value{text, "default"}
		}
		if k, ok := config.BrokerKey(name); ok && k.Sensitive && v.text != "" {
			v.text = hidden
		}
		doc.Settings = append(doc.Settings, settingDoc{name, v.text, v.origin})
	}
	return doc, nil
}

func (p program) configCheck() *cobra.Command {
	var s sources
	cmd := &cobra.Command{
		Use: "check", Short: "Check a configuration without starting anything", Args: report.Args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := s.read(cmd, p, nil)
			if err != nil {
				return err
			}
			if _, err := l.settings(); err != nil {
				return err
			}
			p.shell.Notef("the configuration is valid")
			return nil
		},
	}
	s.add(cmd, true, nil)
	return cmd
}

// explainDoc is all that is known of one setting.
type explainDoc struct {
	V           int      `json:"v"`
	Name        string   `json:"name"`
	Kind        string   `json:"kind"`
	Type        string   `json:"type,omitempty"`
	Default     *string  `json:"default"`
	Doc         string   `json:"doc"`
	Environment string   `json:"environment,omitempty"`
	Flag        string   `json:"flag,omitempty"`
	Changes     string   `json:"changes,omitempty"`
	Synonym     string   `json:"broker_default_from,omitempty"`
	Topics      []string `json:"default_for_topic_settings,omitempty"`
}

func (p program) configExplain() *cobra.Command {
	return &cobra.Command{
		Use: "explain KEY", Short: "Explain a setting of a broker or a topic", Args: report.Args(1, 1, "KEY"), ValidArgsFunction: completeKeys,
		Example: "  everlog config explain log.retention.ms\n  everlog config explain retention.ms\n  everlog config explain data_dir",
		RunE: func(_ *cobra.Command, args []string) error {
			docs := explain(args[0])
			if len(docs) == 0 {
				e := report.Errorf(report.NotFound, "there is no setting %q", args[0])
				if hint := report.DidYouMean(args[0], allNames()); hint != "" {
					return e.WithHint("%s", hint)
				}
				return e.WithHint("everlog config print --all lists the broker's")
			}
			for i, doc := range docs {
				if i > 0 && !p.shell.Printer().Structured() {
					fmt.Fprintln(p.shell.Out)
				}
				if err := p.shell.Printer().Print(doc, doc.print); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func completeKeys(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return slices.DeleteFunc(allNames(), func(n string) bool { return !strings.HasPrefix(n, prefix) }), cobra.ShellCompDirectiveNoFileComp
}

func allNames() []string {
	names := append(keyNames(), brokerNames()...)
	for _, k := range config.TopicKeys() {
		names = append(names, k.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// explain gives what is known of a name: it may be a setting of brokers and of topics.
func explain(name string) []*explainDoc {
	var docs []*explainDoc
	if k, ok := keyNamed(strings.ReplaceAll(strings.TrimPrefix(name, "--"), "-", "_")); ok {
		doc := &explainDoc{V: 1, Name: k.name, Kind: "setting of this process", Doc: k.doc, Environment: k.env(), Flag: "--" + k.flag(), Changes: "at a restart"}
		if k.fallback != "" {
			doc.Default = &k.fallback
		}
		docs = append(docs, doc)
	}
	if k, ok := config.BrokerKey(name); ok {
		doc := known(k, "broker setting")
		doc.Environment, doc.Flag = settingPrefix+strings.ToUpper(strings.ReplaceAll(name, ".", "_")), "--set "+name+"=…"
		doc.Changes = map[config.Scope]string{config.ReadOnly: "at a restart", config.PerBroker: "at run time, for one broker", config.ClusterWide: "at run time, for one broker or all"}[k.Scope]
		for _, t := range config.TopicKeys() {
			if t.Synonym == name {
				doc.Topics = append(doc.Topics, t.Name)
			}
		}
		docs = append(docs, doc)
	}
	if k, ok := config.TopicKey(name); ok {
		doc := known(k, "topic setting")
		doc.Flag, doc.Changes, doc.Synonym = "everlog topic alter TOPIC -c "+name+"=…", "at run time", k.Synonym
		docs = append(docs, doc)
	}
	return docs
}

func known(k *config.Key, kind string) *explainDoc {
	doc := &explainDoc{V: 1, Name: k.Name, Kind: kind, Type: strings.ToLower(k.Type.String()), Doc: k.Doc}
	if k.HasDefault && !k.Sensitive {
		doc.Default = &k.Default
	}
	return doc
}

func (d *explainDoc) print(t *report.Table) {
	t.Line("%s: %s", d.Name, d.Kind)
	t.Line("  %s", d.Doc)
	fallback := "none"
	if d.Default != nil {
		fallback = fmt.Sprintf("%q", *d.Default)
	}
	for _, row := range [][2]string{
		{"type", d.Type}, {"default", fallback}, {"default from", d.Synonym}, {"default for", strings.Join(d.Topics, ", ")},
		{"set by", d.Flag}, {"environment", d.Environment}, {"changes", d.Changes},
	} {
		if row[1] != "" {
			t.Row("  "+row[0], row[1])
		}
	}
}
