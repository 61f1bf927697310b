package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/everlog/everlog/tier/vfs"
)

// A file of the disk tier. All integers are big-endian, all checksums CRC-32C.
//
//	 0  magic "EVCACHE1", which is also the version: a file of another is dropped
//	 8  name size uint32, block count uint32
//	16  position of the first block in the object, uint64
//	24  object name
//	    for each block: stored size uint32, checksum of its stored bytes uint32
//	    checksum of all the above uint32
//	    stored bytes of the blocks, one after another, to the end of the file
//
// Nothing is synced and no order of writes is relied on: the header's checksum and the file's size are checked at start, a
// block's checksum whenever it is read.
const (
	fileMagic   = "EVCACHE1"
	fileFixed   = 24
	fileEntry   = 8
	fileSuffix  = ".blocks"
	maxFileName = 4 << 10
	maxBlocks   = 1 << 20
	// headerGuess is what is read of a file at first, enough for the header of nearly all.
	headerGuess = 4 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errTorn = errors.New("torn or foreign cache file")

func fileName(number uint64) string { return fmt.Sprintf("%020d%s", number, fileSuffix) }

func fileNumber(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, fileSuffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	return n, err == nil
}

// listFiles returns the names in dir, oldest file first, and makes dir if it is absent.
func listFiles(fs vfs.FS, dir string) ([]string, error) {
	if err := fs.MkdirAll(dir); err != nil {
		return nil, err
	}
	return fs.List(dir)
}

// encodeFile returns the header of the file for a load, and where its blocks will lie. The file has no name yet.
func encodeFile(ld *load, payload []byte) ([]byte, *diskFile, []diskPlace) {
	object := ld.layout.Object()
	size := fileFixed + len(object) + fileEntry*len(ld.blocks) + 4
	f := &diskFile{size: int64(size + len(payload))}
	places := make([]diskPlace, 0, len(ld.blocks))
	h := make([]byte, 0, size)
	h = append(h, fileMagic...)
	h = binary.BigEndian.AppendUint32(h, uint32(len(object)))
	h = binary.BigEndian.AppendUint32(h, uint32(len(ld.blocks)))
	h = binary.BigEndian.AppendUint64(h, uint64(ld.position))
	h = append(h, object...)
	at := 0
	for _, b := range ld.blocks {
		sum := crc32.Checksum(payload[at:at+b.key.stored], castagnoli)
		h = binary.BigEndian.AppendUint32(h, uint32(b.key.stored))
		h = binary.BigEndian.AppendUint32(h, sum)
		f.keys = append(f.keys, b.key)
		places = append(places, diskPlace{file: f, position: int64(size + at), crc: sum})
		at += b.key.stored
	}
	return binary.BigEndian.AppendUint32(h, crc32.Checksum(h, castagnoli)), f, places
}

func writeFile(fs vfs.FS, name string, header, payload []byte) error {
	f, err := fs.Create(name)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(header, 0); err == nil {
		_, err = f.WriteAt(payload, int64(len(header)))
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// readBlocks reads blocks that lie side by side in one file, and checks them.
func readBlocks(fs vfs.FS, name string, places []diskPlace, blocks []*block, in []byte) error {
	f, err := fs.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if n, err := f.ReadAt(in, places[0].position); n < len(in) {
		return errors.Join(errTorn, err)
	}
	for i, b := range blocks {
		if crc32.Checksum(in[:b.key.stored], castagnoli) != places[i].crc {
			return errTorn
		}
		in = in[b.key.stored:]
	}
	return nil
}

// openFile reads the header of a file found at start.
func openFile(fs vfs.FS, dir, name string) (*diskFile, []diskPlace, error) {
	if _, ok := fileNumber(name); !ok {
		return nil, nil, errTorn
	}
	file, err := fs.Open(path.Join(dir, name))
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return nil, nil, err
	}
	header, err := readHeader(file, size)
	if err != nil {
		return nil, nil, err
	}
	return decodeFile(name, size, header)
}

// readHeader returns the header of a file of size bytes, its checksum verified.
func readHeader(file io.ReaderAt, size int64) ([]byte, error) {
	p := make([]byte, min(size, headerGuess))
	if n, err := file.ReadAt(p, 0); n < len(p) {
		return nil, err
	}
	if len(p) < fileFixed || string(p[:8]) != fileMagic {
		return nil, errTorn
	}
	names, blocks := int64(binary.BigEndian.Uint32(p[8:])), int64(binary.BigEndian.Uint32(p[12:]))
	need := fileFixed + names + fileEntry*blocks + 4
	if names == 0 || names > maxFileName || blocks == 0 || blocks > maxBlocks || need > size {
		return nil, errTorn
	}
	if need > int64(len(p)) {
		p = make([]byte, need)
		if n, err := file.ReadAt(p, 0); n < len(p) {
			return nil, err
		}
	}
	p = p[:need]
	if crc32.Checksum(p[:need-4], castagnoli) != binary.BigEndian.Uint32(p[need-4:]) {
		return nil, errTorn
	}
	return p, nil
}

// decodeFile is the reverse of encodeFile.
func decodeFile(name string, size int64, h []byte) (*diskFile, []diskPlace, error) {
	names, blocks := int(binary.BigEndian.Uint32(h[8:])), int(binary.BigEndian.Uint32(h[12:]))
	object := string(h[fileFixed : fileFixed+names])
	f := &diskFile{name: name, size: size}
	places := make([]diskPlace, 0, blocks)
	from, at := int64(binary.BigEndian.Uint64(h[16:])), int64(len(h))
	for entry := h[fileFixed+names:]; len(places) < blocks; entry = entry[fileEntry:] {
		stored := binary.BigEndian.Uint32(entry)
		f.keys = append(f.keys, key{object: object, position: from, stored: int(stored)})
		places = append(places, diskPlace{file: f, position: at, crc: binary.BigEndian.Uint32(entry[4:])})
		from += int64(stored)
		at += int64(stored)
	}
	if at != size {
		return nil, nil, errTorn
	}
	return f, places, nil
}
