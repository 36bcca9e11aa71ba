//! Lambda functions as their authors would write them, with AWS's crates: one for HTTP, and one for any event (`FORM=raw`).
//! What they do depends on the path or the event.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lambda_http::{Body, Request, RequestExt, Response};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};

static INVOCATIONS: AtomicU64 = AtomicU64::new(0);

async fn http(request: Request) -> Result<Response<Body>, Error> {
    let count = INVOCATIONS.fetch_add(1, Ordering::Relaxed) + 1;
    let query = request.query_string_parameters();
    let number = |name| query.first(name).and_then(|text| text.parse().ok()).unwrap_or(0);
    let text = |body: String| {
        let response = Response::builder().header("content-type", "text/plain");
        Ok(response.header("x-from", "rust").body(Body::from(body))?)
    };
    match request.raw_http_path() {
        "/error" => Err("this cannot be done".into()),
        "/panic" => panic!("out of order"),
        "/exit" => std::process::exit(3),
        "/sleep" => {
            tokio::time::sleep(Duration::from_millis(number("ms"))).await;
            text("slept".into())
        }
        "/binary" => {
            let response = Response::builder().status(201);
            let response = response.header("content-type", "application/octet-stream");
            let response = response.header("set-cookie", "a=b").header("set-cookie", "c=d");
            Ok(response.body(Body::Binary(request.body().to_vec()))?)
        }
        "/big" => text("x".repeat(number("bytes") as usize)),
        _ => {
            let body = String::from_utf8_lossy(request.body()).into_owned();
            text(format!("{} {body} {count}", request.method()))
        }
    }
}

async fn raw(event: LambdaEvent<Value>) -> Result<Value, Error> {
    match event.payload["do"].as_str() {
        Some("error") => Err("this cannot be done".into()),
        _ => Ok(json!({
            "event": event.payload, "arn": event.context.invoked_function_arn, "id": event.context.request_id,
        })),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    println!("booted");
    match std::env::var("FORM").as_deref() {
        Ok("raw") => lambda_runtime::run(service_fn(raw)).await,
        _ => lambda_http::run(service_fn(http)).await,
    }
}
