//! What a registry wants to see: a challenge, and what answers it. Pure.
//!
//! ```text
//!   401 Basic   ──> user and password of config.json
//!   401 Bearer  ──> token service (its address is in the challenge) ──> token
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, Uri};
use http_auth::ChallengeParser;
use serde::Deserialize;

use crate::credentials::Credential;

/// Longest challenge that is looked at, in bytes.
const CHALLENGE_BYTES_MAX: usize = 4096;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: Uri, service: Option<String> },
}

/// The challenge of an answer, tokens before passwords.
pub(crate) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let texts = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut found = None;
    for text in texts.filter(|text| text.len() <= CHALLENGE_BYTES_MAX) {
        for challenge in ChallengeParser::new(text).map_while(Result::ok) {
            let parameter = |name: &str| {
                let mut parameters = challenge.params.iter();
                let value = parameters.find(|(key, _)| key.eq_ignore_ascii_case(name));
                value.map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameter("realm").and_then(|realm| realm.parse().ok())
            {
                let service = parameter("service");
                return Some(Challenge::Bearer { realm, service });
            }
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                found = Some(Challenge::Basic);
            }
        }
    }
    found
}

/// The header for user and password.
pub(crate) fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    let encoded = STANDARD.encode(format!("{user}:{password}"));
    sensitive(format!("Basic {encoded}"))
}

/// The header for a token.
pub(crate) fn bearer(token: &str) -> Option<HeaderValue> {
    sensitive(format!("Bearer {token}"))
}

fn sensitive(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The request for a token: its address, and the form that goes with an identity token.
pub(crate) fn token_request(
    realm: &Uri,
    service: Option<&str>,
    scope: &str,
    credential: Option<&Credential>,
) -> Option<(Uri, Option<String>)> {
    let mut query = format!("scope={}", encode(scope));
    if let Some(service) = service {
        query = format!("service={}&{query}", encode(service));
    }
    if let Some(Credential::Identity(token)) = credential {
        let form = format!(
            "grant_type=refresh_token&client_id=spore&{query}&refresh_token={}",
            encode(token)
        );
        return Some((realm.clone(), Some(form)));
    }
    let separator = if realm.query().is_some() { '&' } else { '?' };
    let uri = format!("{realm}{separator}{query}").parse().ok()?;
    Some((uri, None))
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The token in the answer of a token service.
pub(crate) fn token(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let Answer { token, access_token } = serde_json::from_slice(bytes).ok()?;
    token.or(access_token).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&'static str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(text));
        }
        challenge(&headers)
    }

    #[test]
    fn challenges_are_understood() {
        assert_eq!(of(&["Basic realm=\"Registry\""]), Some(Challenge::Basic));
        let bearer = Challenge::Bearer {
            realm: Uri::from_static("https://auth.example/token"),
            service: Some("registry.example".to_owned()),
        };
        let text = "Bearer realm=\"https://auth.example/token\",service=\"registry.example\",scope=\"x\"";
        assert_eq!(of(&[text]), Some(bearer.clone()));
        assert_eq!(of(&["Basic realm=\"x\"", text]), Some(bearer));
        for none in [
            &[][..],
            &["Digest realm=\"x\""],
            &["Bearer service=\"x\""],
            &["Bearer realm=\"\""],
        ] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }

    #[test]
    fn tokens_are_asked_for() {
        let realm = Uri::from_static("https://auth.example/token?a=b");
        let (uri, form) = token_request(&realm, Some("r"), "repository:a/b:pull", None).expect("a request");
        assert_eq!(
            uri,
            "https://auth.example/token?a=b&service=r&scope=repository%3Aa%2Fb%3Apull"
        );
        assert_eq!(form, None);
        let identity = Credential::Identity("i&".to_owned());
        let (uri, form) = token_request(&realm, None, "s", Some(&identity)).expect("a request");
        assert_eq!(uri, realm);
        let form = form.expect("a form");
        assert_eq!(
            form,
            "grant_type=refresh_token&client_id=spore&scope=s&refresh_token=i%26"
        );
        assert_eq!(
            token(br#"{"token":"a","access_token":"b"}"#).as_deref(),
            Some("a")
        );
        assert_eq!(token(br#"{"access_token":"b"}"#).as_deref(), Some("b"));
        assert_eq!(token(br#"{"token":""}"#), None);
        assert!(bearer("a\nb").is_none(), "a token is one word of a header");
        assert_eq!(
            basic("ada", "secret").expect("a header"),
            "Basic YWRhOnNlY3JldA=="
        );
    }
}
