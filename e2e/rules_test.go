package e2e

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// topLevel is all that may stand in the root of the repository beside dot-files (DESIGN.md §4).
var topLevel = []string{"cmd", "ingest", "tier", "cache", "compaction", "cluster", "deploy", "e2e", "go.mod", "go.sum", "README.md", "Makefile", "LICENSE"}

func TestTopLevelIsFixed(t *testing.T) {
	for _, name := range trackedRoots(t) {
		if !strings.HasPrefix(name, ".") && !slices.Contains(topLevel, name) {
			t.Errorf("%s stands in the root of the repository: the top level is fixed by DESIGN.md §4, put it into the directory that owns it", name)
		}
	}
}

// fileCalls are the functions of package os that touch files.
var fileCalls = []string{
	"Open", "OpenFile", "OpenRoot", "OpenInRoot", "Create", "CreateTemp", "ReadFile", "WriteFile", "ReadDir", "Stat", "Lstat", "Mkdir", "MkdirAll", "MkdirTemp",
	"Remove", "RemoveAll", "Rename", "Link", "Symlink", "Truncate", "Chmod", "DirFS",
}

// TestFilesGoThroughVFS: what opens a file by itself cannot be crashed, filled up or made to fail by the memory file system, so its recovery is never tested.
func TestFilesGoThroughVFS(t *testing.T) {
	eachSource(t, func(name, file string, tree *ast.File) {
		if within(name, "tier/vfs") || within(name, "cmd") || within(name, "e2e") || within(name, "tier/objecttest") {
			return
		}
		for _, call := range selectors(tree, "os") {
			if slices.Contains(fileCalls, call) {
				t.Errorf("%s calls os.%s: only tier/vfs and cmd open files, everything else is given a vfs.FS", file, call)
			}
		}
	})
}

// TestOnlyTheBinaryExits: log.Fatal and os.Exit skip the deferred fsyncs and releases of everybody else.
func TestOnlyTheBinaryExits(t *testing.T) {
	eachSource(t, func(name, file string, tree *ast.File) {
		if within(name, "cmd/everlog") || within(name, "e2e") {
			return
		}
		if slices.Contains(selectors(tree, "os"), "Exit") {
			t.Errorf("%s calls os.Exit: return the error, cmd/everlog ends the process", file)
		}
		for _, call := range selectors(tree, "log") {
			if !imports(tree, "log") {
				continue // a variable
			}
			t.Errorf("%s calls log.%s: use the slog.Logger that was passed in", file, call)
		}
	})
}

// TestPackagesSayWhatTheyAre: a package without a doc comment has no stated owner of what.
func TestPackagesSayWhatTheyAre(t *testing.T) {
	documented := map[string]bool{}
	eachSource(t, func(name, _ string, tree *ast.File) {
		documented[name] = documented[name] || tree.Doc != nil
	})
	for name, ok := range documented {
		if !ok {
			t.Errorf("package %s has no doc comment: say what it owns, what it does not, and who calls it", name)
		}
	}
}

// TestTestsNeitherSleepNorSkip: a sleep is a race that passes most days, a skip is a failure nobody sees. Sleeping between two looks
// at a condition is not meant, nor is sleeping in the time of testing/synctest, which does not pass.
func TestTestsNeitherSleepNorSkip(t *testing.T) {
	for _, p := range listPackages(t) {
		files, err := filepath.Glob(filepath.Join(p.Dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			tree := parse(t, file)
			for _, receiver := range []string{"t", "tb", "f"} {
				for _, call := range selectors(tree, receiver) {
					if call == "Skip" || call == "SkipNow" || call == "Skipf" {
						t.Errorf("%s skips: what cannot run fails with a sentence saying what to install", file)
					}
				}
			}
			if !imports(tree, "testing/synctest") && sleeps(tree) {
				t.Errorf("%s sleeps: poll the condition with a deadline", file)
			}
		}
	}
}

// sleeps reports whether time.Sleep is called outside of a loop that looks at the clock.
func sleeps(tree *ast.File) bool {
	all := len(slices.DeleteFunc(selectors(tree, "time"), func(name string) bool { return name != "Sleep" }))
	polls := 0
	ast.Inspect(tree, func(n ast.Node) bool {
		loop, ok := n.(*ast.ForStmt)
		if !ok {
			return true
		}
		if inside := selectors(loop, "time"); slices.Contains(inside, "Now") {
			polls += len(slices.DeleteFunc(inside, func(name string) bool { return name != "Sleep" }))
		}
		return false
	})
	return all > polls
}

func imports(tree *ast.File, path string) bool {
	return slices.ContainsFunc(tree.Imports, func(spec *ast.ImportSpec) bool { return spec.Path.Value == strconv.Quote(path) })
}

// eachSource calls fn with every file of production code: the package's name below the module, the file's path, its syntax.
func eachSource(t *testing.T, fn func(name, file string, tree *ast.File)) {
	t.Helper()
	for _, p := range listPackages(t) {
		for _, file := range p.GoFiles {
			path := filepath.Join(p.Dir, file)
			fn(strings.TrimPrefix(p.ImportPath, module), path, parse(t, path))
		}
	}
}

func parse(t *testing.T, file string) *ast.File {
	t.Helper()
	tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// selectors returns the names selected from the identifier, such as every X of os.X.
func selectors(tree ast.Node, identifier string) []string {
	var names []string
	ast.Inspect(tree, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == identifier {
				names = append(names, s.Sel.Name)
			}
		}
		return true
	})
	return names
}

func trackedRoots(t *testing.T) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "ls-files")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v; the tests run in a clone of the repository", err)
	}
	var names []string
	for file := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(strings.TrimSpace(file), "/")
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
