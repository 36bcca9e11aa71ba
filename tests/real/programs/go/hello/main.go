// The smallest web server that people write in Go.
package main

import (
	"fmt"
	"net/http"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Serverless Unikernels!")
	})
	http.ListenAndServe(":8080", nil)
}
