package spore

import (
	"fmt"
	"net"
	"net/http"
	"os"
)

var beforeSnapshot []func() error

// BeforeSnapshot lets callback be called once before the snapshot is made, by [Serve]: what it loads or computes, every
// clone has from the start. If it returns an error, the program ends.
func BeforeSnapshot(callback func() error) {
	mutex.Lock()
	defer mutex.Unlock()
	beforeSnapshot = append(beforeSnapshot, callback)
}

// Serve answers requests by handler, on port PORT (8080) of SPORE_ADDRESS (all), until the program ends.
func Serve(handler http.Handler) {
	if err := serve(handler); err != nil {
		fmt.Fprintln(os.Stderr, "spore:", err)
		os.Exit(1)
	}
}

func serve(handler http.Handler) error {
	if os.Getenv("SPORE_INITIALIZATION") == "snapshot" {
		for _, callback := range beforeSnapshot {
			if err := callback(); err != nil {
				return err
			}
		}
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	return http.ListenAndServe(net.JoinHostPort(os.Getenv("SPORE_ADDRESS"), port), handler)
}
