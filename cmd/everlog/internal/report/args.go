package report

import (
	"slices"

	"github.com/spf13/cobra"
)

// Args checks the number of arguments of a command: from low to high, -1 for any number. want names them for the error.
func Args(low, high int, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < low:
			return Usagef("%s wants %s", cmd.CommandPath(), want).WithHint("%s --help", cmd.CommandPath())
		case high >= 0 && len(args) > high:
			return Usagef("%s does not take %q", cmd.CommandPath(), args[high]).WithHint("it takes %s; quote an argument with spaces", wantOrNothing(want))
		}
		return nil
	}
}

func wantOrNothing(want string) string {
	if want == "" {
		return "no arguments"
	}
	return want
}

// Tree finishes a command tree: a command that only holds others shows its help, and refuses a name that is none of them.
func Tree(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		Tree(sub)
	}
	if cmd.Runnable() || !cmd.HasSubCommands() {
		return
	}
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		var names []string
		for _, sub := range cmd.Commands() {
			if !sub.Hidden {
				names = append(append(names, sub.Name()), sub.Aliases...)
			}
		}
		slices.Sort(names)
		e := Usagef("%s has no command %q", cmd.CommandPath(), args[0])
		if hint := DidYouMean(args[0], names); hint != "" {
			return e.WithHint("%s", hint)
		}
		return e.WithHint("%s --help lists them", cmd.CommandPath())
	}
}
