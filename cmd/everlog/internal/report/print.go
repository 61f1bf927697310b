package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/goccy/go-yaml"
	"golang.org/x/term"
)

// Style colours text for a terminal, or not at all.
type Style struct{ on bool }

// NewStyle decides on colour: "always", "never", or "auto", which wants a terminal, no NO_COLOR and a TERM that is not dumb.
func NewStyle(mode string, w io.Writer) Style {
	switch mode {
	case "always":
		return Style{true}
	case "never":
		return Style{}
	}
	return Style{IsTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// IsTerminal tells whether w is a terminal.
func IsTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (s Style) paint(code, text string) string {
	if !s.on {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// Red is for errors, Green for what is well, Yellow for warnings, Bold for headings, Dim for what matters less.
func (s Style) Red(text string) string    { return s.paint("31", text) }
func (s Style) Green(text string) string  { return s.paint("32", text) }
func (s Style) Yellow(text string) string { return s.paint("33", text) }
func (s Style) Bold(text string) string   { return s.paint("1", text) }
func (s Style) Dim(text string) string    { return s.paint("2", text) }

// Enabled tells whether colours are on; libraries that colour by themselves ask.
func (s Style) Enabled() bool { return s.on }

// Outputs are the formats of --output.
var Outputs = []string{"table", "wide", "json", "jsonl", "yaml"}

// Printer writes one result to standard output in the format asked for.
type Printer struct {
	Out    io.Writer
	Format string // one of Outputs; "" is table
}

// List is a document made of items: jsonl prints one line for each.
type List interface{ Items() []any }

// Print writes doc as JSON or YAML, or calls table. doc's fields carry json tags in snake_case and its first field is "v".
func (p Printer) Print(doc any, table func(t *Table)) error {
	switch p.Format {
	case "json":
		enc := json.NewEncoder(p.Out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(doc)
	case "jsonl":
		return p.lines(doc)
	case "yaml":
		var b bytes.Buffer
		if err := json.NewEncoder(&b).Encode(doc); err != nil {
			return err
		}
		y, err := yaml.JSONToYAML(b.Bytes())
		if err != nil {
			return err
		}
		_, err = p.Out.Write(y)
		return err
	}
	t := &Table{wide: p.Format == "wide", w: tabwriter.NewWriter(p.Out, 0, 4, 2, ' ', 0)}
	table(t)
	return t.w.Flush()
}

func (p Printer) lines(doc any) error {
	enc := json.NewEncoder(p.Out)
	enc.SetEscapeHTML(false)
	list, ok := doc.(List)
	if !ok {
		return enc.Encode(doc)
	}
	for _, item := range list.Items() {
		if err := enc.Encode(item); err != nil {
			return err
		}
	}
	return nil
}

// Structured tells whether the output is for programs.
func (p Printer) Structured() bool {
	return p.Format == "json" || p.Format == "jsonl" || p.Format == "yaml"
}

// Table is bare columns with upper-case heads, easy to cut and sort.
type Table struct {
	w    *tabwriter.Writer
	wide bool
}

// Wide tells whether --output wide was asked for.
func (t *Table) Wide() bool { return t.wide }

// Row writes one row of cells.
func (t *Table) Row(cells ...any) {
	text := make([]string, len(cells))
	for i, c := range cells {
		text[i] = fmt.Sprint(c)
		if text[i] == "" {
			text[i] = "-"
		}
	}
	fmt.Fprintln(t.w, strings.Join(text, "\t"))
}

// Line writes a line that is no row; the columns after it are laid out anew.
func (t *Table) Line(format string, args ...any) {
	t.w.Flush()
	fmt.Fprintf(t.w, format+"\n", args...)
	t.w.Flush()
}

// Count prints a number with its noun: "1 record", "2 records".
func Count(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
