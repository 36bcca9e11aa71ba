// Package function has the workloads of spore bench in Go: see workload.c, which says what each is.
package function

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/cmplx"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

func primes(n int, _ []byte) uint64 {
	composite := make([]bool, n+1)
	count := uint64(0)
	for i := 2; i < n; i++ {
		if composite[i] {
			continue
		}
		count++
		for j := i * i; j < n; j += i {
			composite[j] = true
		}
	}
	return count
}

func matrix(n int, _ []byte) uint64 {
	a, b, c := make([]float64, n*n), make([]float64, n*n), make([]float64, n*n)
	for i := range a {
		a[i], b[i] = float64(i%7), float64(i%5)
	}
	for i := 0; i < n; i++ {
		for k := 0; k < n; k++ {
			factor := a[i*n+k]
			for j := 0; j < n; j++ {
				c[i*n+j] += factor * b[k*n+j]
			}
		}
	}
	sum := 0.0
	for _, value := range c {
		sum += value
	}
	return uint64(sum)
}

func fft(bits int, _ []byte) uint64 {
	if bits > 24 {
		bits = 24
	}
	n := 1 << bits
	points := make([]complex128, n)
	for i, j := 0, 0; i < n; i++ {
		points[j] = complex(float64(i%8), 0)
		bit := n >> 1
		for bit != 0 && j&bit != 0 {
			j ^= bit
			bit >>= 1
		}
		j |= bit
	}
	for length := 2; length <= n; length *= 2 {
		for k := 0; k < length/2; k++ {
			sin, cos := math.Sincos(-2 * math.Pi * float64(k) / float64(length))
			for i := k; i < n; i += length {
				turned := points[i+length/2] * complex(cos, sin)
				points[i+length/2] = points[i] - turned
				points[i] += turned
			}
		}
	}
	return uint64(cmplx.Abs(points[n/2]) + 0.5)
}

type item struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
	Even bool   `json:"even"`
}

func writeAndRead(n int, _ []byte) uint64 {
	items := make([]item, n)
	for i := range items {
		items[i] = item{i, fmt.Sprintf("item %d", i), i%2 == 0}
	}
	text, _ := json.Marshal(items)
	var found []item
	if json.Unmarshal(text, &found) != nil {
		return 0
	}
	sum := uint64(0)
	for _, one := range found {
		sum += uint64(one.ID)
	}
	return sum
}

func hash(n int, _ []byte) uint64 {
	digest := sha256.Sum256(make([]byte, n))
	return uint64(binary.BigEndian.Uint32(digest[:]))
}

var (
	lock  sync.Mutex
	files = map[int]*os.File{}
)

func fileOf(kib int) (*os.File, error) {
	lock.Lock()
	defer lock.Unlock()
	if file := files[kib]; file != nil {
		return file, nil
	}
	file, err := os.CreateTemp("", "workload")
	if err != nil {
		return nil, err
	}
	os.Remove(file.Name())
	if _, err := file.Write(bytes.Repeat([]byte{1}, kib*1024)); err != nil {
		file.Close()
		return nil, err
	}
	files[kib] = file
	return file, nil
}

func read(kib int, _ []byte) uint64 {
	file, err := fileOf(kib)
	if err != nil {
		return 0
	}
	piece := make([]byte, 131072)
	total, position := uint64(0), int64(0)
	for {
		count, err := file.ReadAt(piece, position)
		if count > 0 {
			total += uint64(count) * uint64(piece[0])
			position += int64(count)
		}
		if err != nil || count == 0 {
			return total
		}
	}
}

func unzip(n int, body []byte) uint64 {
	total := uint64(0)
	for i := 0; i < n; i++ {
		out, _ := io.ReadAll(flate.NewReader(bytes.NewReader(body)))
		total = 0
		for _, value := range out {
			total += uint64(value)
		}
	}
	return total
}

func spin(n int, _ []byte) uint64 {
	state := uint64(88172645463325252)
	for i := 0; i < n; i++ {
		state ^= state << 13
		state ^= state >> 7
		state ^= state << 17
	}
	return state & 0xffff
}

func sleep(n int, _ []byte) uint64 {
	time.Sleep(time.Duration(n) * time.Millisecond)
	return uint64(n)
}

var work = map[string]func(int, []byte) uint64{
	"/primes": primes, "/matrix": matrix, "/fft": fft, "/json": writeAndRead, "/sha256": hash,
	"/read": read, "/unzip": unzip, "/spin": spin, "/sleep": sleep,
}

// Handle answers one request.
func Handle(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "the body could not be read", http.StatusBadRequest)
		return
	}
	switch r.URL.Path {
	case "/echo":
		w.Write(body)
		return
	case "/next":
		w.Write(append(body, '.'))
		return
	}
	n, _ := strconv.Atoi(r.URL.Query().Get("n"))
	if r.URL.Path == "/read" {
		if _, err := fileOf(n); err != nil {
			http.Error(w, "no file can be written here", http.StatusNotImplemented)
			return
		}
	}
	start := time.Now()
	check := uint64(0)
	if one := work[r.URL.Path]; one != nil {
		check = one(n, body)
	}
	fmt.Fprintf(w, "elapsed_ns=%d check=%d\n", time.Since(start).Nanoseconds(), check)
}
