// Package function answers the requests of a Spore function.
package function

import (
	"fmt"
	"io"
	"net/http"
)

// Handle answers one request.
func Handle(w http.ResponseWriter, r *http.Request) {
	// Standard output and error go to the function's log: spore logs.
	fmt.Println(r.Method, r.URL.Path)

	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "the body could not be read", http.StatusBadRequest)
		return
	}
	name := r.URL.Query().Get("name")
	if name == "" {
		name = "world"
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "Hello, %s, from a unikernel!\n", name)
	if len(body) > 0 {
		fmt.Fprintf(w, "You sent %d bytes.\n", len(body))
	}
}
