package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/everlog/everlog/cmd/everlog/internal/bucket"
	"github.com/everlog/everlog/cmd/everlog/internal/client"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
	"github.com/everlog/everlog/cmd/everlog/internal/server"
)

// execute runs one command line and gives the exit code.
func execute(ctx context.Context, shell *report.Shell, args []string) report.Code {
	root := rootCommand(shell)
	root.SetArgs(args)
	root.SetIn(shell.In)
	root.SetOut(shell.Out)
	root.SetErr(shell.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return report.Done
	}
	code := report.CodeOf(err)
	if errors.Is(err, context.Canceled) {
		return report.Interrupted // whoever pressed Ctrl-C knows
	}
	report.WriteError(shell.Err, err, shell.ErrStyle(), shell.Verbose)
	return code
}

func rootCommand(shell *report.Shell) *cobra.Command {
	root := &cobra.Command{
		Use:   "everlog",
		Short: "A Kafka-compatible log that keeps every record",
		Long: "everlog is a Kafka-compatible log service that keeps every record: brokers take writes on local disks, ship them to\n" +
			"object storage, and serve history from there. The same binary is the broker and its tools.",
		Example:           "  everlog dev\n  echo hello | everlog produce demo\n  everlog consume demo -o start -e",
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return shell.Check() },
	}
	root.SetUsageTemplate(usage)
	root.CompletionOptions.DisableDefaultCmd = true
	flags := root.PersistentFlags()
	flags.StringVar(&shell.Output, "output", "", "table, wide, json, jsonl or yaml; for records text, raw or jsonl")
	flags.BoolVar(&shell.JSON, "json", false, "same as --output json")
	flags.StringVar(&shell.Color, "color", "auto", "auto, always or never")
	flags.StringVar(&shell.Progress, "progress", "auto", "auto, bar, plain or off")
	flags.BoolVarP(&shell.Verbose, "verbose", "v", false, "say more, and show the causes of an error")
	flags.BoolVarP(&shell.Yes, "yes", "y", false, "do not ask before something that cannot be undone")
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(helpCommand())
	root.AddCommand(client.Commands(shell)...)
	root.AddCommand(server.Commands(shell, startNode, openStore)...)
	root.AddCommand(bucket.Commands(shell, openStore, bucket.FromMetadata)...)
	root.AddCommand(versionCommand(shell), completionCommand(shell), exitCodesTopic())
	report.Tree(root)
	return root
}

// flagError makes the library's words on a wrong flag ours, with the flag that may have been meant.
func flagError(cmd *cobra.Command, err error) error {
	e := report.Usagef("%w", err)
	if name, ok := strings.CutPrefix(err.Error(), "unknown flag: --"); ok {
		e = report.Usagef("%s has no flag --%s", cmd.CommandPath(), name)
		if s, ok := report.Suggest(name, flagNames(cmd)); ok {
			return e.WithHint("did you mean --%s?", s)
		}
	}
	return e.WithHint("%s --help lists the flags", cmd.CommandPath())
}

// helpCommand is cobra's help, which refuses what does not exist.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND...]", Short: "Help about a command, or exit-codes",
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || found == nil || len(rest) > 0 && found == cmd.Root() {
				return report.Usagef("there is no help for %q", strings.Join(args, " ")).WithHint("everlog help lists the commands")
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}

func exitCodesTopic() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: strings.TrimSuffix(report.CodesHelp, "\n")}
}

// usage is how help looks below the description: cobra's, without the second usage line of commands that only hold others.
const usage = `Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND{{else}}{{.UseLine}}{{end}}
{{- if .HasExample}}

Examples:
{{.Example}}{{end}}
{{- if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}
{{- if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
{{- if .HasAvailableInheritedFlags}}

Flags of all commands here:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
{{- if .HasHelpSubCommands}}

More help:{{range .Commands}}{{if .IsAdditionalHelpTopicCommand}}
  everlog help {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}
`
