// Answers with numbers from every generator that a program of Go's has: a name and a number in each line.
//
//go:debug randseednop=0
package main

import (
	cryptorand "crypto/rand"
	"fmt"
	"io"
	"log"
	oldrand "math/rand"
	"math/rand/v2"
	"net/http"

	"spore"
)

var restored []uint64

func numbers(to io.Writer) {
	drawn := make([]byte, 8)
	if _, err := cryptorand.Read(drawn); err != nil {
		log.Fatal(err)
	}
	fmt.Fprintf(to, "crypto/rand %x\n", drawn)
	fmt.Fprintf(to, "math/rand/v2 %d\n", rand.Uint64())
	fmt.Fprintf(to, "math/rand %d\n", oldrand.Uint64())
	fmt.Fprintf(to, "spore.Rand %d\n", spore.Rand.Uint64())
	if len(restored) == 1 {
		fmt.Fprintf(to, "spore.AfterRestore %d\n", restored[0])
	}
}

func main() {
	spore.AfterRestore(func() error {
		restored = append(restored, spore.Rand.Uint64())
		return nil
	})
	// All of them have a seed, and numbers drawn ahead where they do so, before the snapshot.
	for range 3 {
		numbers(io.Discard)
	}
	http.HandleFunc("/", func(response http.ResponseWriter, _ *http.Request) { numbers(response) })
	log.Fatal(http.ListenAndServe(":8080", nil))
}
