package cache

import (
	"errors"
	"path"
	"sync"
	"time"

	"github.com/everlog/everlog/tier/vfs"
)

const (
	// diskQueue is the most files that wait to be written; what comes then is not kept. Each pins its buffer.
	diskQueue = 4
	// diskPause is how long nothing is written after a write has failed.
	diskPause = 10 * time.Second
)

// disk is the second tier: one file for each GET that was kept, with the bytes as the store has them. It keeps everything
// while there is room, then what the memory tier has seen before. Files go oldest first, those read since they were last
// looked at once more round. All errors end here: a block that cannot be read is a block that is not there.
//
// The methods that the read path calls answer for a nil disk.
type disk struct {
	fs   vfs.FS
	dir  string
	now  func() time.Time
	jobs chan diskJob
	stop chan struct{}
	done chan struct{}

	mu sync.Mutex
	// ready is false until the directory has been read.
	ready bool
	// limit is how many bytes of files may be kept: most, or less since the disk was found full.
	limit  int64
	most   int64
	bytes  int64
	index  map[key]diskPlace
	files  []*diskFile // oldest first
	next   uint64      // number of the next file
	paused time.Time   // until when nothing is written

	hits, written, evicted, failed int64
}

// diskPlace is where a block lies.
type diskPlace struct {
	file     *diskFile
	position int64
	crc      uint32
}

type diskFile struct {
	name string
	size int64
	keys []key
	// visited says that it was read since eviction last passed it; gone, that it is no longer indexed.
	visited bool
	gone    bool
}

// diskJob is a file to be written: the stored bytes of a load, lent until release.
type diskJob struct {
	load    *load
	payload []byte
	release func()
}

func openDisk(o Options) *disk {
	d := &disk{
		fs: o.Disk, dir: o.Dir, now: o.Now, most: o.DiskBytes, limit: o.DiskBytes,
		jobs: make(chan diskJob, diskQueue), stop: make(chan struct{}), done: make(chan struct{}),
		index: map[key]diskPlace{},
	}
	go d.run()
	return d
}

// run reads the directory, then writes files one at a time, until close.
func (d *disk) run() {
	defer close(d.done)
	d.rebuild()
	for {
		select {
		case <-d.stop:
			return
		case job := <-d.jobs:
			d.write(job)
			job.release()
		}
	}
}

func (d *disk) close() {
	close(d.stop)
	<-d.done
	for {
		select {
		case job := <-d.jobs:
			job.release()
		default:
			return
		}
	}
}

// find returns the file that holds a block, or nil.
func (d *disk) find(k key) *diskFile {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.index[k].file
}

// wants reports whether what a load brought from the store is worth a file.
func (d *disk) wants(ld *load, seen *ghost, now time.Time) bool {
	if d == nil {
		return false
	}
	known := 0
	for _, b := range ld.blocks {
		if seen.has(b.key, now) {
			known++
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ready || now.Before(d.paused) {
		return false
	}
	return d.bytes+int64(ld.stored) <= d.limit || 2*known >= len(ld.blocks)
}

// offer queues a file to be written; false if too many wait. It never blocks.
func (d *disk) offer(ld *load, payload []byte, release func()) bool {
	select {
	case d.jobs <- diskJob{load: ld, payload: payload, release: release}:
		return true
	default:
		return false
	}
}

// read fills in with the stored bytes of a load that find placed here; false if that is not possible, and then the file is
// given up.
func (d *disk) read(ld *load, in []byte) bool {
	d.mu.Lock()
	places := make([]diskPlace, len(ld.blocks))
	for i, b := range ld.blocks {
		if places[i] = d.index[b.key]; places[i].file != ld.file {
			d.mu.Unlock()
			return false // evicted since
		}
	}
	ld.file.visited = true
	d.mu.Unlock()

	if err := readBlocks(d.fs, path.Join(d.dir, ld.file.name), places, ld.blocks, in); err != nil {
		d.fail()
		d.drop(ld.file)
		return false
	}
	d.mu.Lock()
	d.hits++
	d.mu.Unlock()
	return true
}

// write makes one file, after making room for it.
func (d *disk) write(job diskJob) {
	header, f, places := encodeFile(job.load, job.payload)
	if f.size > d.most {
		return
	}
	for d.evict(f.size) {
	}
	d.mu.Lock()
	f.name = fileName(d.next)
	d.next++
	fits := d.bytes+f.size <= d.limit
	d.mu.Unlock()
	if !fits {
		return
	}
	if err := writeFile(d.fs, path.Join(d.dir, f.name), header, job.payload); err != nil {
		d.fail()
		_ = d.fs.Remove(path.Join(d.dir, f.name)) // a file that stays is found at the next start
		d.yield(err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.written++
	d.limit = min(d.most, d.limit+f.size/8)
	d.addLocked(f, places)
}

// yield reacts to a failed write: nothing is written for a while, and if the disk is full, an eighth of the files goes.
func (d *disk) yield(err error) {
	d.mu.Lock()
	d.paused = d.now().Add(diskPause)
	if errors.Is(err, vfs.ErrNoSpace) {
		d.limit = d.bytes - d.bytes/8
	}
	d.mu.Unlock()
	for d.evict(0) {
	}
}

// addLocked indexes a file.
func (d *disk) addLocked(f *diskFile, places []diskPlace) {
	for i, k := range f.keys {
		d.index[k] = places[i]
	}
	d.files = append(d.files, f)
	d.bytes += f.size
}

// evict removes one file if size more bytes would not fit, and reports whether it did.
func (d *disk) evict(size int64) bool {
	d.mu.Lock()
	if d.bytes+size <= d.limit || len(d.files) == 0 {
		d.mu.Unlock()
		return false
	}
	f := d.files[0]
	for f.visited && !f.gone {
		f.visited = false
		d.files = append(d.files[1:], f)
		f = d.files[0]
	}
	if f.gone {
		d.files = d.files[1:]
		d.mu.Unlock()
		return true
	}
	d.evicted++
	d.mu.Unlock()
	d.drop(f)
	return true
}

// drop takes a file out of the index and unlinks it. Reads of it that have it open go on.
func (d *disk) drop(f *diskFile) {
	d.mu.Lock()
	if f.gone {
		d.mu.Unlock()
		return
	}
	f.gone = true
	d.bytes -= f.size
	for _, k := range f.keys {
		if d.index[k].file == f {
			delete(d.index, k)
		}
	}
	d.mu.Unlock()
	if err := d.fs.Remove(path.Join(d.dir, f.name)); err != nil {
		d.fail()
	}
}

func (d *disk) fail() {
	d.mu.Lock()
	d.failed++
	d.mu.Unlock()
}

// rebuild makes the directory, and indexes the files that an earlier cache left there whole.
func (d *disk) rebuild() {
	names, err := listFiles(d.fs, d.dir)
	if err != nil {
		d.fail()
	}
	for _, name := range names {
		select {
		case <-d.stop:
			return
		default:
		}
		f, places, err := openFile(d.fs, d.dir, name)
		d.mu.Lock()
		if number, ok := fileNumber(name); ok {
			d.next = max(d.next, number+1)
		}
		if err == nil {
			d.addLocked(f, places)
		}
		d.mu.Unlock()
		if err != nil {
			_ = d.fs.RemoveAll(path.Join(d.dir, name)) // not a file of ours, or torn: nothing is lost
		}
	}
	for d.evict(0) {
	}
	d.mu.Lock()
	d.ready = true
	d.mu.Unlock()
}

// report adds the disk tier to the stats.
func (d *disk) report(s *Stats) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s.DiskHits, s.DiskWritten, s.DiskEvicted, s.DiskErrors, s.DiskBytes = d.hits, d.written, d.evicted, d.failed, d.bytes
}
