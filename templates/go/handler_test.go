package function

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestGreetsByName(t *testing.T) {
	answer := httptest.NewRecorder()
	Handle(answer, httptest.NewRequest("GET", "/?name=Ada", nil))
	if answer.Code != 200 || answer.Body.String() != "Hello, Ada, from a unikernel!\n" {
		t.Errorf("%d %q", answer.Code, answer.Body)
	}
}

func TestCountsTheBody(t *testing.T) {
	answer := httptest.NewRecorder()
	Handle(answer, httptest.NewRequest("POST", "/", strings.NewReader("abc")))
	if !strings.Contains(answer.Body.String(), "You sent 3 bytes.") {
		t.Errorf("%q", answer.Body)
	}
}
