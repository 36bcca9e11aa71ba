// Package spore is the Spore SDK for Go: what a program renews when it goes on as a clone of a snapshot.
//
// Copy the folder into the module and import it. crypto/rand asks the system each time, and needs nothing. The functions
// of math/rand and math/rand/v2 draw from generators of the runtime's, which nothing can seed again: in all clones of a
// snapshot they give the same numbers. Use [Rand] in their place where that matters:
//
//	spore.Rand.IntN(6)
//
// In a module of Go 1.23 or older, or with the directive "//go:debug randseednop=0" in package main, the functions of
// math/rand (not of v2) are seeded anew.
// Seeds of maps' hashes are the same in all clones, and cannot be changed in a running program.
package spore

import (
	cryptorand "crypto/rand"
	"encoding/binary"
	"fmt"
	oldrand "math/rand"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
)

// The kernel's number of the generation of this memory; see docs/snapshots.md.
const device = "/dev/sysgenid"

// Rand is a generator like that of math/rand/v2 which every clone has its own of. It may be used by several goroutines.
var Rand = rand.New(shared)

var (
	shared    = &source{generator: rand.NewChaCha8(seed())}
	mutex     sync.Mutex
	callbacks []func() error
)

// AfterRestore lets callback be called in each clone: in the order of registration, after the generators are renewed and
// before the first request reaches the program, on a goroutine of its own. If it returns an error, the instance ends.
// Where there are no snapshots, nothing is ever called.
func AfterRestore(callback func() error) {
	mutex.Lock()
	defer mutex.Unlock()
	callbacks = append(callbacks, callback)
}

// source is a ChaCha8 generator behind a lock.
type source struct {
	mutex     sync.Mutex
	generator *rand.ChaCha8
}

func (source *source) Uint64() uint64 {
	source.mutex.Lock()
	defer source.mutex.Unlock()
	return source.generator.Uint64()
}

func (source *source) renew() {
	source.mutex.Lock()
	defer source.mutex.Unlock()
	source.generator.Seed(seed())
}

func seed() (seed [32]byte) {
	if _, err := cryptorand.Read(seed[:]); err != nil {
		panic(err)
	}
	return seed
}

func renew() {
	shared.renew()
	fresh := seed()
	//lint:ignore SA1019 nothing else seeds the functions of math/rand
	oldrand.Seed(int64(binary.LittleEndian.Uint64(fresh[:])))
}

func watch(file *os.File) error {
	generation := make([]byte, 4)
	for {
		if _, err := file.Read(generation); err != nil {
			return err
		}
		renew()
		mutex.Lock()
		registered := callbacks
		mutex.Unlock()
		for _, callback := range registered {
			if err := callback(); err != nil {
				return err
			}
		}
		// The first request waits for this.
		if _, err := file.Write(generation); err != nil {
			return err
		}
	}
}

func init() {
	// Without blocking, it takes no thread.
	descriptor, err := syscall.Open(device, syscall.O_RDWR|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	go func() {
		if err := watch(os.NewFile(uintptr(descriptor), device)); err != nil {
			fmt.Fprintln(os.Stderr, "spore:", err)
			os.Exit(1)
		}
	}()
}
