package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

// document is the configuration file: strict YAML, so that a slip of the finger is an error and not a default.
type document struct {
	NodeID    *string        `yaml:"node_id"`
	DataDir   *string        `yaml:"data_dir"`
	Listen    *string        `yaml:"listen"`
	Advertise *string        `yaml:"advertise"`
	HTTP      *string        `yaml:"http"`
	Store     *string        `yaml:"store"`
	LogLevel  *string        `yaml:"log_level"`
	LogFormat *string        `yaml:"log_format"`
	Settings  map[string]any `yaml:"settings"`
}

// byName are the document's own keys.
func (d *document) byName() map[string]*string {
	return map[string]*string{
		"node_id": d.NodeID, "data_dir": d.DataDir, "listen": d.Listen, "advertise": d.Advertise, "http": d.HTTP,
		"store": d.Store, "log_level": d.LogLevel, "log_format": d.LogFormat,
	}
}

// file lays the configuration file over the defaults. Errors show the line with a caret.
func (l *layers) file(name string, color bool) error {
	content, err := os.ReadFile(name)
	if err != nil {
		return report.Usagef("configuration: %w", err)
	}
	var d document
	err = yaml.NewDecoder(bytes.NewReader(content), yaml.Strict()).Decode(&d)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return fileError(name, err, color)
	}
	lines, err := lineNumbers(content)
	if err != nil {
		return fileError(name, err, color)
	}
	for key, text := range d.byName() {
		if text != nil {
			l.own[key] = value{*text, fmt.Sprintf("file %s:%d", name, lines[key])}
		}
	}
	for key, v := range d.Settings {
		origin := fmt.Sprintf("file %s:%d", name, lines["settings."+key])
		text, err := scalar(v)
		if err != nil {
			return report.Usagef("%s: setting %q %w", origin, key, err)
		}
		l.kafka[key] = value{text, origin}
	}
	return nil
}

func fileError(name string, err error, color bool) error {
	e := &report.Error{Code: report.Usage, What: "configuration " + name + ": " + yaml.FormatError(err, color, true), Cause: err}
	var unknown *yaml.UnknownFieldError
	if errors.As(err, &unknown) && unknown.Token != nil {
		if hint := report.DidYouMean(unknown.Token.Value, append(keyNames(), "settings")); hint != "" {
			return e.WithHint("%s", hint)
		}
		return e.WithHint("the keys are %s, settings; Kafka's names stand below settings", strings.Join(keyNames(), ", "))
	}
	return e
}

// scalar gives the text of a YAML value as Kafka writes it; a list becomes words with commas.
func scalar(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", errors.New("has no value")
	case []any:
		words := make([]string, len(v))
		for i, item := range v {
			word, err := scalar(item)
			if err != nil {
				return "", err
			}
			words[i] = word
		}
		return strings.Join(words, ","), nil
	case map[string]any:
		return "", errors.New(`is no single value (write "log.retention.ms: 1", not log: retention:)`)
	}
	return fmt.Sprint(v), nil
}

// lineNumbers finds the line of every key, "settings.NAME" below settings.
func lineNumbers(content []byte) (map[string]int, error) {
	tree, err := parser.ParseBytes(content, 0)
	if err != nil {
		return nil, err
	}
	lines := map[string]int{}
	for _, doc := range tree.Docs {
		for _, entry := range entries(doc.Body) {
			key := entry.Key.GetToken()
			lines[key.Value] = key.Position.Line
			if key.Value != "settings" {
				continue
			}
			for _, setting := range entries(entry.Value) {
				at := setting.Key.GetToken()
				lines["settings."+at.Value] = at.Position.Line
			}
		}
	}
	return lines, nil
}

// entries are the pairs of a mapping, which the parser gives in two shapes.
func entries(n ast.Node) []*ast.MappingValueNode {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	}
	return nil
}
