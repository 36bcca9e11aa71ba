// A server that uses what is special about Go's runtime: many goroutines, channels, timers, the garbage collector,
// and faults that become panics. Every answer is the same each time.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const goroutines = 1000

// sum hashes numbers in many goroutines that hand their results on through one channel.
func sum(w http.ResponseWriter, r *http.Request) {
	results := make(chan uint64)
	for i := 0; i < goroutines; i++ {
		go func(seed uint64) {
			value := seed
			for round := 0; round < 200; round++ {
				value = value*6364136223846793005 + 1442695040888963407
				if round%50 == 0 {
					runtime.Gosched()
				}
			}
			results <- value
		}(uint64(i))
	}
	var total uint64
	for i := 0; i < goroutines; i++ {
		total += <-results
	}
	fmt.Fprintf(w, "%d goroutines, checksum %016x\n", goroutines, total)
}

// relay passes a number through a chain of goroutines.
func relay(w http.ResponseWriter, r *http.Request) {
	first := make(chan int)
	in := first
	for i := 0; i < goroutines; i++ {
		out := make(chan int)
		go func(in <-chan int, out chan<- int) { out <- 1 + <-in }(in, out)
		in = out
	}
	first <- 0
	fmt.Fprintf(w, "passed on %d times\n", <-in)
}

// timers waits for many timers at once; their order is what their durations say.
func timers(w http.ResponseWriter, r *http.Request) {
	var fired atomic.Int64
	var group sync.WaitGroup
	for i := 0; i < goroutines; i++ {
		group.Add(2)
		time.AfterFunc(time.Duration(i%20)*time.Millisecond, func() {
			fired.Add(1)
			group.Done()
		})
		go func(i int) {
			defer group.Done()
			time.Sleep(time.Duration(i%7) * time.Millisecond)
			fired.Add(1)
		}(i)
	}
	group.Wait()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for i := 0; i < 5; i++ {
		<-ticker.C
	}
	limited, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer cancel()
	<-limited.Done()
	start := time.Now()
	time.Sleep(10 * time.Millisecond)
	waited := time.Since(start)
	fmt.Fprintf(w, "%d fired, waited as long as asked: %v, %v\n", fired.Load(),
		waited >= 10*time.Millisecond && waited < 10*time.Second, limited.Err())
}

type node struct {
	left, right *node
	payload     [4]uint64
}

func tree(depth int) *node {
	if depth == 0 {
		return &node{payload: [4]uint64{1, 2, 3, 4}}
	}
	return &node{left: tree(depth - 1), right: tree(depth - 1)}
}

func (n *node) count() int {
	if n == nil {
		return 0
	}
	return 1 + n.left.count() + n.right.count()
}

// garbage makes several times as much of it as the heap may grow to.
func garbage(w http.ResponseWriter, r *http.Request) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	kept := tree(14)
	total := 0
	for i := 0; i < 40; i++ {
		total += tree(12).count()
		block := make([]byte, 1<<20)
		for j := range block {
			block[j] = byte(i)
		}
		total += int(block[len(block)-1])
	}
	runtime.GC()
	debug.FreeOSMemory()
	runtime.ReadMemStats(&after)
	fmt.Fprintf(w, "%d nodes, %d kept, collected: %v\n", total, kept.count(), after.NumGC > before.NumGC)
}

// fault dereferences nil, divides by zero and reads past an end, and goes on.
func fault(w http.ResponseWriter, r *http.Request) {
	try := func(what func()) (message string) {
		defer func() { message = fmt.Sprint(recover()) }()
		what()
		return ""
	}
	var nothing *node
	zero := len(r.Form)
	list := []int{1, 2, 3}
	fmt.Fprintln(w, try(func() { fmt.Fprintln(io.Discard, nothing.payload[1]) }))
	fmt.Fprintln(w, try(func() { fmt.Fprintln(io.Discard, 1/zero) }))
	fmt.Fprintln(w, try(func() { fmt.Fprintln(io.Discard, list[len(list)+zero]) }))
	panics := 0
	for i := 0; i < 100; i++ {
		if try(func() { nothing.payload[2] = 1 }) != "" {
			panics++
		}
	}
	fmt.Fprintf(w, "%d more\n", panics)
}

// starve lets a loop without calls run beside others: only a preempted goroutine lets them on.
func starve(w http.ResponseWriter, r *http.Request) {
	var stop atomic.Bool
	done := make(chan uint64)
	go func() {
		var spins uint64
		for !stop.Load() {
			spins++
		}
		done <- spins
	}()
	time.Sleep(5 * time.Millisecond)
	stop.Store(true)
	spins := <-done
	fmt.Fprintf(w, "stopped a spinning goroutine: %v\n", spins > 0)
}

// loopback connects to a listener of its own.
func loopback(w http.ResponseWriter, r *http.Request) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer listener.Close()
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				io.Copy(connection, connection)
			}()
		}
	}()
	total := 0
	for i := 0; i < 10; i++ {
		connection, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		sent := make([]byte, 10000)
		for j := range sent {
			sent[j] = byte(i + j)
		}
		go func() {
			connection.Write(sent)
			connection.(*net.TCPConn).CloseWrite()
		}()
		back, err := io.ReadAll(connection)
		if err != nil || string(back) != string(sent) {
			http.Error(w, fmt.Sprint("came back changed: ", err), http.StatusInternalServerError)
			return
		}
		total += len(back)
		connection.Close()
	}
	fmt.Fprintf(w, "%d bytes there and back\n", total)
}

// files writes, lists and removes in the temporary folder.
func files(w http.ResponseWriter, r *http.Request) {
	folder, err := os.MkdirTemp("", "busy")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer os.RemoveAll(folder)
	for i := 0; i < 5; i++ {
		os.WriteFile(fmt.Sprintf("%s/%d", folder, i), make([]byte, i*1000), 0o640)
	}
	entries, _ := os.ReadDir(folder)
	for _, entry := range entries {
		info, _ := entry.Info()
		fmt.Fprintln(w, entry.Name(), info.Size(), info.Mode())
	}
	_, err = os.Stat(folder + "/none")
	fmt.Fprintln(w, errors.Is(err, os.ErrNotExist))
}

// echo answers with the length and the digest of what it got.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %d bytes %x\n", r.Method, len(body), sha256.Sum256(body))
}

// compute times a loop that neither allocates nor calls.
func compute(w http.ResponseWriter, r *http.Request) {
	iterations, _ := strconv.Atoi(r.URL.Query().Get("iterations"))
	start := time.Now()
	value := uint64(1)
	for i := 0; i < iterations; i++ {
		value = value*6364136223846793005 + 1442695040888963407
		value ^= value >> 29
	}
	fmt.Fprintf(w, "value=%016x elapsed_ns=%d\n", value, time.Since(start).Nanoseconds())
}

func main() {
	http.HandleFunc("/sum", sum)
	http.HandleFunc("/relay", relay)
	http.HandleFunc("/timers", timers)
	http.HandleFunc("/garbage", garbage)
	http.HandleFunc("/fault", fault)
	http.HandleFunc("/starve", starve)
	http.HandleFunc("/loopback", loopback)
	http.HandleFunc("/files", files)
	http.HandleFunc("/echo", echo)
	http.HandleFunc("/compute", compute)
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "busy") })
	err := http.ListenAndServe(":"+os.Getenv("PORT"), nil)
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
