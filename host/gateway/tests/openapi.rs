//! The OpenAPI document: it is what the code says, and what the daemon does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use http::{Method, StatusCode};
use serde_json::Value;
use spore_sandbox::fake::FakeFunction;

mod support;

use support::Fixture;

/// Methods that a route may have, as the document and as requests write them.
const METHODS: [(&str, Method); 5] = [
    ("get", Method::GET),
    ("post", Method::POST),
    ("put", Method::PUT),
    ("delete", Method::DELETE),
    ("patch", Method::PATCH),
];

fn document() -> Value {
    serde_json::from_str(&spore_gateway::openapi()).expect("it is JSON")
}

#[test]
fn the_document_in_the_repository_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let made = spore_gateway::openapi();
    if std::env::var_os("SPORE_WRITE_OPENAPI").is_some() {
        std::fs::write(&path, &made).expect("the repository is writable");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == made,
        "docs/openapi.json is old: SPORE_WRITE_OPENAPI=1 cargo test -p spore-gateway --test openapi"
    );
}

/// Paths with their methods.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let mut documented: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let document = document();
    for (path, methods) in document["paths"].as_object().expect("an object") {
        let methods = methods.as_object().expect("an object").keys().cloned();
        documented.entry(path.clone()).or_default().extend(methods);
    }
    documented
}

/// An address of that form, of nothing that exists.
fn address(template: &str) -> String {
    let names = [("{name}", "nobody"), ("{call_id}", "none"), ("{count}", "1")];
    names
        .into_iter()
        .fold(template.to_owned(), |address, (name, value)| {
            address.replace(name, value)
        })
}

#[tokio::test]
async fn the_daemon_has_the_documented_methods_and_no_others() {
    let fixture = Fixture::start(FakeFunction::echo()).await;
    for (template, methods) in documented() {
        let path = address(&template);
        for (name, method) in METHODS {
            let (answer, text) = fixture.call(method, &path, "").await;
            let is_refused = answer.status() == StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(is_refused, !methods.contains(name), "{name} {path}: {text}");
            assert!(!text.contains("nothing at this address"), "{name} {path}");
            if is_refused {
                let allowed = answer.headers()["allow"].to_str().expect("text").to_lowercase();
                let allowed: BTreeSet<_> = allowed.split(", ").map(str::to_owned).collect();
                // Where there is GET, HEAD need not be documented.
                let others: BTreeSet<_> = allowed.into_iter().filter(|name| name != "head").collect();
                assert_eq!(others, methods, "{path}");
            }
        }
    }
}

#[test]
fn every_address_in_the_code_is_documented() {
    let source = include_str!("../src/routes.rs");
    let source = source.split("#[cfg(test)]").next().unwrap_or(source);
    let addresses = source
        .split('"')
        .filter(|text| text.starts_with('/') && text.len() > 1 && !text.contains([' ', '\n']));
    let documented = documented();
    let mut found = 0;
    for address in addresses {
        if ["/function/", "/v2", "/v2/", "/stats", "/fire", "/pre-boot/"].contains(&address) {
            continue;
        }
        found += 1;
        let is_documented = documented.keys().any(|path| path.starts_with(address));
        assert!(is_documented, "{address}");
    }
    assert!(found >= 10, "the routes are written in another way now");
}

#[tokio::test]
async fn answers_have_documented_statuses() {
    let fixture = Fixture::start(FakeFunction::echo()).await;
    let document = document();
    for (template, methods) in document["paths"].as_object().expect("an object") {
        let path = address(template);
        for (name, method) in METHODS {
            let Some(responses) = methods[name]["responses"].as_object() else {
                continue;
            };
            for body in ["", "{}", "[", r#"{"name":"a"}"#] {
                let (answer, text) = fixture.call(method.clone(), &path, body).await;
                let status = answer.status().as_str().to_owned();
                assert!(
                    responses.contains_key(&status),
                    "{name} {path} {body}: {status} {text}"
                );
            }
        }
    }
}
