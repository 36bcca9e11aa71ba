//! The variables in which a command finds its request, as the classic watchdog names them. Pure.

use http::HeaderName;
use http::header::{CONTENT_LENGTH, HOST};
use http::request::Parts;

/// The variables of a request whose body is so long, if that is known.
pub(crate) fn variables(head: &Parts, body_bytes: Option<u64>) -> Vec<(String, Vec<u8>)> {
    let headers = &head.headers;
    let of_headers = headers
        .keys()
        .filter(|name| ![HOST, CONTENT_LENGTH].contains(name));
    let of_headers = of_headers.filter_map(|name| {
        let value = headers.get(name)?.as_bytes();
        Some((format!("Http_{}", canonical(name)), value.to_vec()))
    });
    let mut all: Vec<_> = of_headers.collect();
    let mut set = |name: &str, value: &[u8]| all.push((format!("Http_{name}"), value.to_vec()));
    set("Method", head.method.as_str().as_bytes());
    let length = body_bytes.map_or("-1".to_owned(), |bytes| bytes.to_string());
    set("ContentLength", length.as_bytes());
    set("Content_Length", length.as_bytes());
    if body_bytes.is_none() {
        set("Transfer_Encoding", b"chunked");
    }
    if let Some(query) = head.uri.query().filter(|query| !query.is_empty()) {
        set("Query", query.as_bytes());
    }
    set("Path", &decoded(head.uri.path()));
    if let Some(host) = headers.get(HOST) {
        set("Host", host.as_bytes());
    }
    all
}

/// How many bytes the variables take, as a sandbox counts them.
pub(crate) fn length(variables: &[(String, Vec<u8>)]) -> usize {
    let lengths = variables.iter().map(|(name, value)| name.len() + value.len() + 2);
    lengths.sum()
}

/// A header's name as a variable's: `X_Call_Id`.
fn canonical(name: &HeaderName) -> String {
    let mut is_first = true;
    let letter = |c: char| {
        let letter = match c {
            '-' => '_',
            c if is_first => c.to_ascii_uppercase(),
            c => c,
        };
        is_first = c == '-';
        letter
    };
    name.as_str().chars().map(letter).collect()
}

/// A path without its percent signs; as it is if it is not well-formed, or holds what no variable can.
fn decoded(path: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let is_hex = |digits: &&str| digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        match digits
            .filter(is_hex)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
        {
            Some(byte) if byte != 0 => bytes.push(byte),
            _ => return path.as_bytes().to_vec(),
        }
        rest = &after[2..];
    }
    bytes
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    fn of(request: Request<()>, body_bytes: Option<u64>) -> Vec<String> {
        let all = variables(&request.into_parts().0, body_bytes).into_iter();
        all.map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(&value)))
            .collect()
    }

    #[test]
    fn a_request_becomes_the_variables_of_the_classic_watchdog() {
        let request = Request::post("/a%20b/c?x=%41&y")
            .header("host", "gateway:8080")
            .header("x-call-id", "7")
            .header("x-twice", "first")
            .header("x-twice", "second")
            .header("content-length", "5")
            .header("content-type", "text/plain")
            .body(())
            .expect("a request");
        let mut found = of(request, Some(5));
        found.sort();
        assert_eq!(
            found,
            [
                "Http_ContentLength=5",
                "Http_Content_Length=5",
                "Http_Content_Type=text/plain",
                "Http_Host=gateway:8080",
                "Http_Method=POST",
                "Http_Path=/a b/c",
                "Http_Query=x=%41&y",
                "Http_X_Call_Id=7",
                "Http_X_Twice=first",
            ]
        );
        let found = of(Request::get("/").body(()).expect("a request"), None);
        assert!(
            found.contains(&"Http_Transfer_Encoding=chunked".to_owned()),
            "{found:?}"
        );
        assert!(found.contains(&"Http_ContentLength=-1".to_owned()), "{found:?}");
    }

    #[test]
    fn paths_that_cannot_be_decoded_stay_as_they_are() {
        for path in ["/%", "/%4", "/%zz", "/a%00b", "/%+1"] {
            assert_eq!(decoded(path), path.as_bytes());
        }
        assert_eq!(decoded("/%c3%a4%2F"), "/ä/".as_bytes());
    }

    proptest! {
        #[test]
        fn no_variable_holds_a_zero_byte(path in "/[ -~]{0,30}") {
            prop_assert!(!decoded(&path).contains(&0));
        }
    }
}
