//! The API as an OpenAPI document, made from the handlers. `docs/openapi.json` is what it says; a test compares both, and the
//! document with the routes.

use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{OpenApi as Document, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use crate::queued::{accept, admin};
use crate::triggers::admin as triggers_admin;
use crate::{activity, alerts, images, logs, metrics, namespaces, routes, scale, secrets, system, ui};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Spore",
        description = "OpenFaaS's API as Spore serves it: see docs/openfaas.md. Errors are one line of text.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        routes::health,
        metrics::answer,
        system::info,
        system::list,
        system::create,
        system::update,
        system::remove,
        system::describe,
        system::statistics,
        activity::answer,
        scale::scale,
        scale::pre_boot,
        scale::pre_boot_by_query,
        secrets::list,
        secrets::create,
        secrets::update,
        secrets::remove,
        namespaces::list,
        namespaces::describe,
        namespaces::create,
        namespaces::create_named,
        namespaces::update,
        namespaces::remove,
        images::list,
        images::remove,
        images::inspect,
        images::pull,
        images::push,
        images::prune,
        images::check,
        accept::accept,
        admin::cancel_by_caller,
        admin::list,
        admin::drop_all,
        admin::show,
        admin::cancel,
        admin::retry,
        triggers_admin::list,
        triggers_admin::fire,
        logs::answer,
        alerts::answer,
        ui::lead_there,
        ui::answer,
    ),
    modifiers(&BasicAuthentication, &EverywhereAlike),
    security(("basic" = []))
)]
struct Api;

struct BasicAuthentication;

impl Modify for BasicAuthentication {
    fn modify(&self, document: &mut Document) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Basic));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("basic", scheme);
    }
}

/// Answers that do not depend on the handler.
struct EverywhereAlike;

impl Modify for EverywhereAlike {
    fn modify(&self, document: &mut Document) {
        for item in document.paths.paths.values_mut() {
            let changing = [&mut item.post, &mut item.put, &mut item.delete];
            for operation in changing.into_iter().flatten() {
                // An operation that needs no credentials says so; so far these are reads, and those for functions.
                if operation.security.is_none() {
                    answers(operation, "403", "It comes from a page of another site");
                }
                if operation.request_body.is_some() {
                    answers(operation, "408", "The body stood still");
                }
            }
            let all = [&mut item.get, &mut item.post, &mut item.put, &mut item.delete];
            for operation in all.into_iter().flatten() {
                if operation.security.is_none() {
                    answers(operation, "401", "The credentials are missing or wrong");
                }
            }
        }
    }
}

fn answers(operation: &mut Operation, status: &str, description: &str) {
    let response = ResponseBuilder::new().description(description).build();
    operation
        .responses
        .responses
        .insert(status.to_owned(), response.into());
}

/// The OpenAPI document of the API, as JSON.
#[must_use]
pub fn openapi() -> String {
    let mut text = Api::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}
