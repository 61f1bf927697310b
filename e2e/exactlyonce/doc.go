// Package exactlyonce has pipelines read a topic and write another in transactions while they and their broker are killed at
// random, and holds what they wrote against what they read. EVERLOG_E2E_EOS names the pipelines (default franz-go and
// franz-go-848; `make eos` adds java-848 and streams), EVERLOG_E2E_EOS_DURATION how long they are disturbed (20s), and
// EVERLOG_E2E_SEED the order of kills. It holds no code beside its tests.
package exactlyonce
