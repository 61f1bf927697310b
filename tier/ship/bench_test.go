package ship

import (
	"io"
	"testing"

	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

// BenchmarkPrepare verifies and recodes a segment of 64 MB on a real disk, then reads the body as an upload does.
func BenchmarkPrepare(b *testing.B) {
	for name, compressible := range map[string]bool{"raw": false, "compressible": true} {
		b.Run(name, func(b *testing.B) {
			fs, dir := vfs.OS(), b.TempDir()
			builder := segment.NewBuilder(testID, 0, 1)
			file, err := fs.Create(dir + "/segment")
			if err != nil {
				b.Fatal(err)
			}
			if _, err := file.WriteAt(builder.Header(), 0); err != nil {
				b.Fatal(err)
			}
			for _, batch := range large(b, 640, func(int) bool { return compressible }) {
				position := builder.Position()
				if err := builder.Add(batch); err != nil {
					b.Fatal(err)
				}
				if _, err := file.WriteAt(batch, position); err != nil {
					b.Fatal(err)
				}
			}
			position := builder.Position()
			trailer, footer := builder.Finish(nil, nil)
			if _, err := file.WriteAt(trailer, position); err != nil {
				b.Fatal(err)
			}
			buffer := make([]byte, 8<<20)
			b.SetBytes(footer.DataSize)
			b.ReportAllocs()
			for b.Loop() {
				u, err := prepare(file, footer, segment.RecodeOptions{}, fs, dir, free)
				if err != nil {
					b.Fatal(err)
				}
				for at := int64(0); at < u.Size(); at += int64(len(buffer)) {
					if _, err := u.ReadAt(buffer, at); err != nil && err != io.EOF {
						b.Fatal(err)
					}
				}
				if err := u.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
