// A Lambda function as its author would write it, with the library of AWS: what it does depends on the path.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

var invocations = 0

func handle(ctx context.Context, event events.APIGatewayV2HTTPRequest) (*events.APIGatewayV2HTTPResponse, error) {
	invocations++
	text := func(body string) (*events.APIGatewayV2HTTPResponse, error) {
		headers := map[string]string{"content-type": "text/plain", "x-from": "go"}
		return &events.APIGatewayV2HTTPResponse{StatusCode: 200, Headers: headers, Body: body}, nil
	}
	switch event.RawPath {
	case "/error":
		return nil, errors.New("this cannot be done")
	case "/panic":
		panic("out of order")
	case "/exit":
		os.Exit(3)
	case "/sleep":
		ms, _ := strconv.Atoi(event.QueryStringParameters["ms"])
		time.Sleep(time.Duration(ms) * time.Millisecond)
		return text("slept")
	case "/binary":
		return &events.APIGatewayV2HTTPResponse{
			StatusCode: 201, Headers: map[string]string{"content-type": "application/octet-stream"},
			Cookies: []string{"a=b", "c=d"}, Body: event.Body, IsBase64Encoded: event.IsBase64Encoded,
		}, nil
	case "/big":
		size, _ := strconv.Atoi(event.QueryStringParameters["bytes"])
		return text(strings.Repeat("x", size))
	case "/context":
		deadline, _ := ctx.Deadline()
		known, _ := lambdacontext.FromContext(ctx)
		return text(fmt.Sprintf("%s %s %s %t %s %d",
			known.AwsRequestID, known.InvokedFunctionArn, lambdacontext.FunctionName,
			time.Until(deadline) > 0 && time.Until(deadline) <= time.Minute,
			os.Getenv("_X_AMZN_TRACE_ID"), lambdacontext.MemoryLimitInMB))
	}
	return text(fmt.Sprintf("%s %s %d", event.RequestContext.HTTP.Method, event.Body, invocations))
}

func main() {
	fmt.Println("booted")
	lambda.Start(handle)
}
