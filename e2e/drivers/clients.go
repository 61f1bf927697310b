package drivers

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/everlog/everlog/e2e/harness"
)

// Client is one client library, with what it can do.
type Client struct {
	Name string
	// Idempotent producers write each record once, in order, whatever happens to broker and connections.
	Idempotent bool
	// Assigns: members report what they are assigned and what is revoked.
	Assigns bool
	// Exact members report what is revoked before the group can have given it to others, by a clock that can be compared.
	Exact bool
	// Clean members commit all they have reported before they give up a partition.
	Clean bool
	// GoesBack: committed offsets may go back at a rebalance.
	GoesBack bool
	// DropsLast members that leave may commit a record that they were given and do not report.
	DropsLast bool
	// Static members can have a group.instance.id, in the classic protocol.
	Static bool
	// ServerSide members speak the protocol of KIP-848; StaticServerSide with a group.instance.id too.
	ServerSide, StaticServerSide bool
	// Transactions: there is a transactional producer. TxnOffsets: it can commit offsets.
	Transactions, TxnOffsets bool
	// Committed: what members with isolation=committed can be trusted with.
	Committed Trust

	command func(t testing.TB) (path string, args, env []string)
}

// Trust says how far a client that reads committed records keeps the others from its user.
type Trust int

const (
	Never Trust = iota // it hands out aborted records, and markers too
	Apart              // only if transactions of several producers do not overlap
	Always
)

// The clients, in the versions pinned by go.mod, librdkafka/go.mod, kafkajs/package-lock.json and java/pom.xml. What they lack
// they lack with Apache Kafka too.
var (
	// Franz 1.22.2 cannot leave for a while as a static member of KIP-848: its heartbeat with epoch -2 has no instance id (INVALID_REQUEST).
	Franz = Client{
		Name: "franz-go", Idempotent: true, Assigns: true, Exact: true, Clean: true, Static: true, ServerSide: true, Transactions: true,
		Committed: Always, command: inGo("franz-go"),
	}
	Sarama = Client{
		Name: "sarama", Idempotent: true, Assigns: true, Exact: true, Clean: true, Static: true, Transactions: true, TxnOffsets: true,
		Committed: Always, command: inGo("sarama"),
	}
	// KafkaGo asks for committed records and does not look at the list of aborted transactions. What it had fetched before a
	// rebalance it hands out after it, and commits it in the new generation.
	KafkaGo = Client{Name: "kafka-go", GoesBack: true, command: inGo("kafka-go")}
	// Kcat is librdkafka 2.0 as Debian ships it. Its reports come through a pipe that may be late. When it is told to end it
	// throws away the record it was just given, and commits it.
	Kcat       = Client{Name: "kcat", Idempotent: true, Assigns: true, Static: true, DropsLast: true, Transactions: true, Committed: Always, command: inGo("kcat")}
	Librdkafka = Client{
		Name: "librdkafka", Idempotent: true, Assigns: true, Exact: true, Clean: true, Static: true, ServerSide: true, StaticServerSide: true,
		Transactions: true, TxnOffsets: true, Committed: Always, command: librdkafka,
	}
	// KafkaJS takes the end of one producer's transaction for the end of all.
	KafkaJS = Client{Name: "kafkajs", Idempotent: true, Assigns: true, Transactions: true, TxnOffsets: true, Committed: Apart, command: kafkaJS}
	Java    = Client{
		Name: "java", Idempotent: true, Assigns: true, Exact: true, Clean: true, Static: true, ServerSide: true, StaticServerSide: true,
		Transactions: true, TxnOffsets: true, Committed: Always, command: java("Driver"),
	}
	// Streams is a word count of Kafka Streams; it has one verb, transform.
	Streams = Client{Name: "streams", command: java("WordCount")}
	Clients = []Client{Franz, Sarama, KafkaGo, Kcat, Librdkafka, KafkaJS, Java}
)

// driverEnv makes a test program run as the driver of the named client: see Main.
const driverEnv = "EVERLOG_E2E_DRIVER"

func inGo(name string) func(testing.TB) (string, []string, []string) {
	return func(t testing.TB) (string, []string, []string) {
		t.Helper()
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		return self, nil, []string{driverEnv + "=" + name}
	}
}

// preparations are what must be built or downloaded before a driver can run, once per test program.
var preparations sync.Map // script → func() error

// prepare runs a script of this repository, once, and fails the test with what it said.
func prepare(t testing.TB, script string) {
	t.Helper()
	once, _ := preparations.LoadOrStore(script, sync.OnceValues(func() (string, error) {
		root, err := harness.Root()
		if err != nil {
			return "", err
		}
		out, err := exec.Command(filepath.Join(root, script)).CombinedOutput()
		return string(out), err
	}))
	if out, err := once.(func() (string, error))(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// cached is a path below the directory that the scripts fill.
func cached(t testing.TB, name string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(cache, "everlog-tools", name)
}

func librdkafka(t testing.TB) (string, []string, []string) {
	t.Helper()
	prepare(t, "e2e/librdkafka/build")
	return cached(t, "bin/librdkafka-driver"), nil, nil
}

func kafkaJS(t testing.TB) (string, []string, []string) {
	t.Helper()
	prepare(t, "e2e/kafkajs/install")
	node := harness.NeedProgram(t, "node", "apt-get install nodejs npm")
	return node, []string{cached(t, "kafkajs/driver.js")}, nil
}

// java runs a class of e2e/java.
func java(class string) func(testing.TB) (string, []string, []string) {
	return func(t testing.TB) (string, []string, []string) {
		t.Helper()
		prepare(t, "e2e/java/build")
		program := harness.NeedProgram(t, "java", "apt-get install default-jdk-headless maven")
		path := cached(t, "java/classes") + ":" + cached(t, "java/jars") + "/*"
		return program, []string{"-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", path, class}, nil
	}
}

// JavaCommand is a class of e2e/java or its jars as a process, which dies with the test.
func JavaCommand(ctx context.Context, t testing.TB, class string, args ...string) *exec.Cmd {
	t.Helper()
	program, fixed, _ := java(class)(t)
	cmd := exec.CommandContext(ctx, program, append(fixed, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}
