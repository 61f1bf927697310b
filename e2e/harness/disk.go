package harness

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Disk is a file system of its own, mounted for one test.
type Disk struct {
	t     testing.TB
	dir   string
	image string // of a loop-mounted ext4; "" for tmpfs
}

// NewDisk mounts a new ext4 of the given size through a loop device, so that its power can be cut. The size is reserved nowhere: the image is sparse.
func NewDisk(t testing.TB, sizeBytes int64) *Disk {
	t.Helper()
	needRoot(t)
	mkfs := NeedProgram(t, "mkfs.ext4", "apt-get install e2fsprogs")
	d := &Disk{t: t, dir: t.TempDir(), image: filepath.Join(t.TempDir(), "image")}
	file, err := os.Create(d.image)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Truncate(sizeBytes); err != nil {
		t.Fatal(err)
	}
	file.Close()
	d.run(mkfs, "-q", "-F", "-m", "0", d.image)
	d.mount()
	t.Cleanup(d.unmountLazily)
	return d
}

// NewSmallDisk mounts a tmpfs of the given size, to be filled up.
func NewSmallDisk(t testing.TB, sizeBytes int64) *Disk {
	t.Helper()
	needRoot(t)
	d := &Disk{t: t, dir: t.TempDir()}
	d.run("mount", "-t", "tmpfs", "-o", "size="+strconv.FormatInt(sizeBytes, 10), "everlog-e2e", d.dir)
	t.Cleanup(d.unmountLazily)
	return d
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts a disk of its own, which needs root: sudo make powercut diskfull")
	}
}

// Dir is where the disk is mounted.
func (d *Disk) Dir() string { return d.dir }

// PowerCut drops everything that is not fsynced: from now on each read, write and fsync fails, until Remount. Processes that use the disk must be killed before that.
func (d *Disk) PowerCut() {
	d.t.Helper()
	const (
		shutdown   = 0x8004587d // FS_IOC_SHUTDOWN
		noLogFlush = uint32(2)  // do not even write the journal out: what a power cut does
	)
	root, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer root.Close()
	how := noLogFlush
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, root.Fd(), shutdown, uintptr(unsafe.Pointer(&how))); errno != 0 {
		d.t.Fatalf("FS_IOC_SHUTDOWN on %s: %v; it needs root and ext4", d.dir, errno)
	}
}

// Remount brings the disk back with what had reached it.
func (d *Disk) Remount() {
	d.t.Helper()
	// The threads of a killed process leave one by one.
	Until(d.t, exitLimit, "the disk is let go of", func() error {
		if out, err := exec.Command("umount", d.dir).CombinedOutput(); err != nil {
			return fmt.Errorf("%s", bytes.TrimSpace(out))
		}
		return nil
	})
	d.mount()
}

// Sync writes out all that is dirty on the disk.
func (d *Disk) Sync() {
	d.t.Helper()
	root, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer root.Close()
	if err := unix.Syncfs(int(root.Fd())); err != nil {
		d.t.Fatal(err)
	}
}

// Free is how many bytes are left.
func (d *Disk) Free() int64 {
	d.t.Helper()
	var s unix.Statfs_t
	if err := unix.Statfs(d.dir, &s); err != nil {
		d.t.Fatal(err)
	}
	return int64(s.Bavail) * s.Bsize
}

func (d *Disk) mount() {
	d.t.Helper()
	d.run("mount", "-o", "loop", d.image, d.dir)
}

// unmountLazily lets go of the disk even if a process of a failed test still holds it.
func (d *Disk) unmountLazily() {
	d.run("umount", "-l", d.dir)
}

func (d *Disk) run(name string, args ...string) {
	d.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}
