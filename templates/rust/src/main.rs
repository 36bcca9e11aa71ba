//! A Spore function: `handle` answers the requests.

use bytes::Bytes;
use http::{Request, Response, header};

/// Answers one request.
async fn handle(request: Request<Bytes>) -> Response<Bytes> {
    // Standard output and error go to the function's log: spore logs.
    println!("{} {}", request.method(), request.uri().path());

    let query = request.uri().query().unwrap_or_default();
    let name = query.split('&').find_map(|pair| pair.strip_prefix("name="));
    let mut text = format!("Hello, {}, from a unikernel!\n", name.unwrap_or("world"));
    if !request.body().is_empty() {
        text += &format!("You sent {} bytes.\n", request.body().len());
    }
    let mut response = Response::new(Bytes::from(text));
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn main() {
    spore::serve(handle);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(uri: &str, body: &'static str) -> Bytes {
        let request = Request::builder().uri(uri).body(Bytes::from(body)).unwrap();
        spore::block_on(handle(request)).into_body()
    }

    #[test]
    fn greets_by_name() {
        assert_eq!(answer("/?name=Ada", ""), "Hello, Ada, from a unikernel!\n");
    }

    #[test]
    fn counts_the_body() {
        assert!(answer("/", "abc").ends_with(b"You sent 3 bytes.\n"));
    }
}
