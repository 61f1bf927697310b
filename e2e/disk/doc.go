// Package disk holds the tests that mount file systems of their own, which needs root: power cuts and full disks.
package disk
