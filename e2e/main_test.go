package e2e

import (
	"testing"

	"github.com/everlog/everlog/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
