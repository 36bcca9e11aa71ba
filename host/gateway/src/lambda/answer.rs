//! What a Lambda function has answered, as an answer of HTTP. Pure; the bytes are the program's, and may be anything.
//!
//! * an object with `statusCode` is the answer: status, headers, cookies, body;
//! * any other JSON is itself the body, with status 200, as with Lambda's function URLs;
//! * what is no JSON is the body too, of no known type.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use http::{Response, StatusCode};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::headers::remove_hop_by_hop;

/// Most values of headers and cookies together.
const VALUES_MAX: usize = 512;
/// Longest message and type of an error that are passed on, in bytes.
const ERROR_BYTES_MAX: usize = 4096;

/// Why an answer cannot be made of what the function has answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("it has a statusCode, but is no valid answer")]
    Shape(#[source] serde_json::Error),
    #[error("its statusCode is {status}: it must be from 200 to 599")]
    Status { status: u16 },
    #[error("`{name}` cannot be a header with this value")]
    Header { name: String },
    #[error("it has more than {VALUES_MAX} headers and cookies")]
    TooMany,
    #[error("isBase64Encoded is true, but its body is not base64")]
    Base64(#[source] base64::DecodeError),
}

/// Whether a statusCode is there.
#[derive(serde::Deserialize)]
struct Probe {
    #[serde(rename = "statusCode")]
    status: Option<IgnoredAny>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default = "ok")]
    status_code: u16,
    #[serde(default)]
    headers: Fields<Scalar>,
    #[serde(default)]
    multi_value_headers: Fields<Scalars>,
    #[serde(default)]
    cookies: Scalars,
    #[serde(default)]
    body: Scalar,
    #[serde(default)]
    is_base64_encoded: Option<bool>,
}

const fn ok() -> u16 {
    200
}

/// The answer that the function means by this response.
pub(crate) fn answer(response: &[u8]) -> Result<Response<Bytes>, AnswerError> {
    let is_object = response.trim_ascii_start().first() == Some(&b'{');
    if is_object && let Ok(Probe { status: Some(_) }) = serde_json::from_slice(response) {
        let shape: Shape = serde_json::from_slice(response).map_err(AnswerError::Shape)?;
        return shape.answer();
    }
    let kind = match serde_json::from_slice::<IgnoredAny>(response) {
        Ok(IgnoredAny) => "application/json",
        Err(_) => "application/octet-stream",
    };
    let mut answer = Response::new(Bytes::copy_from_slice(response));
    let kind = HeaderValue::from_static(kind);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(answer)
}

/// The head of an answer whose body comes in pieces behind it.
pub(crate) fn prelude(bytes: &[u8]) -> Result<Response<Bytes>, AnswerError> {
    let shape: Shape = serde_json::from_slice(bytes).map_err(AnswerError::Shape)?;
    shape.answer()
}

impl Shape {
    fn answer(self) -> Result<Response<Bytes>, AnswerError> {
        let status = StatusCode::from_u16(self.status_code)
            .ok()
            .filter(|status| (200..600).contains(&status.as_u16()));
        let status = status.ok_or(AnswerError::Status {
            status: self.status_code,
        })?;
        let body = match self.is_base64_encoded {
            Some(true) => STANDARD.decode(self.body.0).map_err(AnswerError::Base64)?,
            _ => self.body.0.into_bytes(),
        };
        let mut answer = Response::new(Bytes::from(body));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        let several = self
            .multi_value_headers
            .0
            .into_iter()
            .flat_map(|(name, values)| values.0.into_iter().map(move |value| (name.clone(), value)));
        let mut count = 0;
        let mut add = |name: &str, value: &str, replaces: bool| {
            count += 1;
            if count > VALUES_MAX {
                return Err(AnswerError::TooMany);
            }
            add_to(headers, name, value, replaces)
        };
        for (name, Scalar(value)) in several {
            add(&name, &value, false)?;
        }
        // Functions that give both mean the same.
        for (name, Scalar(value)) in self.headers.0 {
            add(&name, &value, true)?;
        }
        for Scalar(cookie) in self.cookies.0 {
            add(SET_COOKIE.as_str(), &cookie, false)?;
        }
        remove_hop_by_hop(headers);
        headers.remove(CONTENT_LENGTH);
        if !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Ok(answer)
    }
}

fn add_to(headers: &mut HeaderMap, name: &str, value: &str, replaces: bool) -> Result<(), AnswerError> {
    let wrong = || AnswerError::Header {
        name: name.chars().take(100).collect(),
    };
    let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
    let value = HeaderValue::from_str(value).map_err(|_| wrong())?;
    if replaces && headers.get_all(&key).iter().any(|known| *known == value) {
        return Ok(());
    }
    match headers.try_append(key, value) {
        Ok(_) => Ok(()),
        Err(_) => Err(AnswerError::TooMany),
    }
}

/// What a function says of its failure.
#[derive(Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct FunctionError {
    error_message: String,
    error_type: String,
}

impl FunctionError {
    /// From what the program has posted, whatever that is; `kind` is what it has said beside it.
    pub(crate) fn of(posted: &[u8], kind: Option<&str>) -> Self {
        let mut error = serde_json::from_slice::<Self>(posted).unwrap_or_else(|_| Self {
            error_message: String::from_utf8_lossy(posted).into_owned(),
            error_type: String::new(),
        });
        if error.error_type.is_empty() {
            kind.unwrap_or("Unknown").clone_into(&mut error.error_type);
        }
        for text in [&mut error.error_message, &mut error.error_type] {
            let mut ends = (0..=text.len().min(ERROR_BYTES_MAX)).rev();
            let end = ends.find(|&end| text.is_char_boundary(end));
            text.truncate(end.unwrap_or(0));
        }
        error
    }
}

/// A text, a number or a truth value, as text; nothing is the empty text.
#[derive(Default)]
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyScalar;
        impl Visitor<'_> for AnyScalar {
            type Value = Scalar;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string (objects are to be written as JSON in a string)")
            }

            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Scalar, E> {
                Ok(Scalar(text))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar::default())
            }
        }
        deserializer.deserialize_any(AnyScalar)
    }
}

/// A bounded list; nothing is the empty one.
#[derive(Default)]
struct Scalars(Vec<Scalar>);

impl<'de> Deserialize<'de> for Scalars {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Scalars;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of strings")
            }

            fn visit_unit<E>(self) -> Result<Scalars, E> {
                Ok(Scalars::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Scalars, A::Error> {
                let mut list = Vec::new();
                while let Some(value) = sequence.next_element()? {
                    if list.len() >= VALUES_MAX {
                        return Err(A::Error::custom(AnswerError::TooMany));
                    }
                    list.push(value);
                }
                Ok(Scalars(list))
            }
        }
        deserializer.deserialize_any(List)
    }
}

/// A bounded map; nothing is the empty one.
struct Fields<T>(Vec<(String, T)>);

impl<T> Default for Fields<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Fields<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Map<T> {
            type Value = Fields<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of headers")
            }

            fn visit_unit<E>(self) -> Result<Fields<T>, E> {
                Ok(Fields::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<T>, A::Error> {
                let mut fields = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    if fields.len() >= VALUES_MAX {
                        return Err(A::Error::custom(AnswerError::TooMany));
                    }
                    fields.push(entry);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_any(Map(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn made(response: &serde_json::Value) -> Result<Response<Bytes>, AnswerError> {
        answer(response.to_string().as_bytes())
    }

    #[test]
    fn an_answer_has_status_headers_cookies_and_body() {
        let made = made(&json!({
            "statusCode": 201,
            "headers": {"Content-Type": "text/html", "X-Number": 7, "Connection": "close", "Content-Length": "99"},
            "multiValueHeaders": {"X-Many": ["a", "b"], "X-Number": ["7"]},
            "cookies": ["a=b; Secure", "c=d"],
            "body": "PGI+", "isBase64Encoded": true, "unknown": [{}],
        }));
        let made = made.expect("an answer");
        assert_eq!((made.status().as_u16(), &made.body()[..]), (201, &b"<b>"[..]));
        let values = |name: &str| -> Vec<_> { made.headers().get_all(name).iter().cloned().collect() };
        assert_eq!(values("x-many"), ["a", "b"]);
        assert_eq!(values("x-number"), ["7"]);
        assert_eq!(values("set-cookie"), ["a=b; Secure", "c=d"]);
        assert_eq!(values("content-type"), ["text/html"]);
        assert!(values("connection").is_empty() && values("content-length").is_empty());
    }

    #[test]
    fn other_json_is_the_body() {
        for text in [
            r#"{"message":"hi"}"#,
            r#" "hello""#,
            "[1,2]",
            "null",
            "3",
            "{\"headers\":5}",
        ] {
            let made = answer(text.as_bytes()).expect("an answer");
            assert_eq!((made.status().as_u16(), &made.body()[..]), (200, text.as_bytes()));
            assert_eq!(made.headers()[CONTENT_TYPE], "application/json");
        }
        let made = answer(b"\xff{").expect("an answer");
        assert_eq!(made.headers()[CONTENT_TYPE], "application/octet-stream");
    }

    #[test]
    fn null_fields_are_as_good_as_none() {
        let made = made(&json!({
            "statusCode": 204, "headers": null, "multiValueHeaders": null, "cookies": null, "body": null,
            "isBase64Encoded": null,
        }));
        let made = made.expect("an answer");
        assert_eq!((made.status().as_u16(), made.body().len()), (204, 0));
    }

    #[test]
    fn answers_that_cannot_be_are_refused() {
        let many: serde_json::Map<_, _> = (0..600).map(|n| (format!("x-{n}"), json!("1"))).collect();
        for bad in [
            json!({"statusCode": 101}),
            json!({"statusCode": 600}),
            json!({"statusCode": -1}),
            json!({"statusCode": "soon"}),
            json!({"statusCode": 200, "body": {"a": 1}}),
            json!({"statusCode": 200, "headers": {"a b": "c"}}),
            json!({"statusCode": 200, "headers": {"a": "c\r\nd: e"}}),
            json!({"statusCode": 200, "headers": ["a"]}),
            json!({"statusCode": 200, "headers": many}),
            json!({"statusCode": 200, "cookies": vec!["a"; 600]}),
            json!({"statusCode": 200, "body": "%", "isBase64Encoded": true}),
        ] {
            assert!(made(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn errors_are_what_the_function_says() {
        let of = |posted: &str, kind| FunctionError::of(posted.as_bytes(), kind);
        let error = of(
            r#"{"errorMessage":"no","errorType":"Bad","stackTrace":["x"]}"#,
            None,
        );
        assert_eq!(
            (error.error_message.as_str(), error.error_type.as_str()),
            ("no", "Bad")
        );
        let error = of("plain", Some("Kind"));
        assert_eq!(
            (error.error_message.as_str(), error.error_type.as_str()),
            ("plain", "Kind")
        );
        assert_eq!(of("", None).error_type, "Unknown");
        let long = "ä".repeat(ERROR_BYTES_MAX);
        assert!(of(&long, None).error_message.len() <= ERROR_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn every_body_comes_back(body in prop::collection::vec(any::<u8>(), 0..200), status in 200_u16..600) {
            let made = made(&json!({
                "statusCode": status, "body": STANDARD.encode(&body), "isBase64Encoded": true,
            })).expect("an answer");
            prop_assert_eq!((made.status().as_u16(), &made.body()[..]), (status, &body[..]));
        }
    }
}
