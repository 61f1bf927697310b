package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

// released is the version of a release, set by the linker: -X main.released=1.2.3.
var released string

// version is that of the release, else of the module that go install built, else what the source control said.
func version() string {
	if released != "" {
		return released
	}
	info, ok := debug.ReadBuildInfo()
	if ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	if rev := setting(info, "vcs.revision"); len(rev) >= 12 {
		return "devel-" + rev[:12]
	}
	return "devel"
}

func setting(info *debug.BuildInfo, key string) string {
	if info == nil {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

type versionDoc struct {
	V        int    `json:"v"`
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func versionCommand(shell *report.Shell) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: report.Args(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			info, _ := debug.ReadBuildInfo()
			doc := versionDoc{1, shell.Version, setting(info, "vcs.revision"), setting(info, "vcs.modified") == "true", runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return shell.Printer().Print(&doc, func(t *report.Table) {
				t.Line("everlog %s (%s, %s)", doc.Version, doc.Go, doc.Platform)
			})
		},
	}
}

func completionCommand(shell *report.Shell) *cobra.Command {
	write := map[string]func(root *cobra.Command) error{
		"bash":       func(r *cobra.Command) error { return r.GenBashCompletionV2(shell.Out, true) },
		"zsh":        func(r *cobra.Command) error { return r.GenZshCompletion(shell.Out) },
		"fish":       func(r *cobra.Command) error { return r.GenFishCompletion(shell.Out, true) },
		"powershell": func(r *cobra.Command) error { return r.GenPowerShellCompletionWithDesc(shell.Out) },
	}
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use: "completion SHELL", Short: "Print the completion script of bash, zsh, fish or powershell", Args: report.Args(1, 1, "SHELL: bash, zsh, fish or powershell"), ValidArgs: shells,
		Long: "Print a completion script. It completes topic names too, asking the brokers of -b or $EVERLOG_BROKERS.\n\n" +
			"  bash        source <(everlog completion bash)\n  zsh         everlog completion zsh > \"${fpath[1]}/_everlog\"\n" +
			"  fish        everlog completion fish | source\n  powershell  everlog completion powershell | Out-String | Invoke-Expression",
		RunE: func(cmd *cobra.Command, args []string) error {
			generate, ok := write[args[0]]
			if !ok {
				return report.Usagef("there is no completion for the shell %q", args[0]).WithHint("%s", fmt.Sprint("one of ", shells))
			}
			return generate(cmd.Root())
		},
	}
}

// flagNames are the flags a command takes.
func flagNames(cmd *cobra.Command) []string {
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return names
}
