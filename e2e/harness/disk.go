package harness

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Disk is a file system of its own, mounted for one test.
type Disk struct {
	t     testing.TB
	dir   string
	image string // what the loop device shows as a disk
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

// ballast is the file that takes the room of others.
func (d *Disk) ballast() string { return filepath.Join(d.dir, "ballast") }

// Fill takes all the room that is left, as another program might. It writes no data.
func (d *Disk) Fill() {
	d.t.Helper()
	file, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer file.Close()
	var size int64
	for piece := int64(1) << 30; piece >= 4096; {
		switch err := unix.Fallocate(int(file.Fd()), 0, size, piece); err {
		case nil:
			size += piece
		case unix.ENOSPC:
			piece /= 2
		default:
			d.t.Fatalf("fallocate: %v", err)
		}
	}
}

// Unfill gives the room back.
func (d *Disk) Unfill() {
	d.t.Helper()
	if err := os.Remove(d.ballast()); err != nil {
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
