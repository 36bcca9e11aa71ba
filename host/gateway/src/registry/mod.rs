//! The registry at `/v2/`: the part of the OCI distribution specification that a push needs, and the reads beside it.
//!
//! ```text
//!  POST uploads/ ──> open ──PATCH*──> open ──PUT ?digest=──> stored
//!                     └─ DELETE, a failed PATCH, an hour without any: gone
//! ```

mod error;
mod target;
mod uploads;

use std::fs::File;
use std::io::{self, Read};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use spore_store::{Digest, MAX_MANIFEST_BYTES, Selector};
use tokio::sync::mpsc;

use crate::body::GatewayBody;
use crate::client_body::ClientBody;
use crate::reply::{self, Answer};
use crate::routes::{Gateway, wrong_method};
use crate::system::read_body;

use error::RegistryError;
use target::Target;
pub(crate) use uploads::Uploads;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// Piece in which a blob is sent, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// Answers a request to `/v2/…`.
pub(crate) async fn answer(gateway: &Gateway, request: Request<ClientBody>) -> Answer {
    let result = match Target::of(request.uri().path()) {
        Ok(target) => route(gateway, target, request).await,
        Err(error) => Err(error),
    };
    let mut response = result.unwrap_or_else(|error| error.answer(&gateway.data));
    let version = HeaderName::from_static("docker-distribution-api-version");
    response
        .headers_mut()
        .insert(version, HeaderValue::from_static("registry/2.0"));
    response
}

async fn route(
    gateway: &Gateway,
    target: Target,
    request: Request<ClientBody>,
) -> Result<Answer, RegistryError> {
    let method = request.method().clone();
    match (target, method) {
        (Target::Root, Method::GET | Method::HEAD) => Ok(reply::json(StatusCode::OK, &serde_json::json!({}))),
        (Target::Blob { digest, .. }, Method::GET) => blob(gateway, digest, true).await,
        (Target::Blob { digest, .. }, Method::HEAD) => blob(gateway, digest, false).await,
        (Target::Manifest { repository, selector }, Method::GET) => {
            manifest(gateway, repository, selector, true).await
        }
        (Target::Manifest { repository, selector }, Method::HEAD) => {
            manifest(gateway, repository, selector, false).await
        }
        (Target::Manifest { repository, selector }, Method::PUT) => {
            put_manifest(gateway, repository, selector, request).await
        }
        (Target::Tags { repository }, Method::GET) => tags(gateway, repository).await,
        (Target::Uploads { repository }, Method::POST) => {
            gateway.uploads.begin(&gateway.store, repository, request).await
        }
        (Target::Upload { repository, id }, Method::PATCH) => {
            gateway.uploads.patch(repository, id, request).await
        }
        (Target::Upload { repository, id }, Method::PUT) => {
            gateway.uploads.put(&gateway.store, repository, id, request).await
        }
        (Target::Upload { repository, id }, Method::GET) => gateway.uploads.status(&repository, id),
        (Target::Upload { id, .. }, Method::DELETE) => gateway.uploads.cancel(id),
        (Target::Root | Target::Blob { .. }, _) => Ok(wrong_method("GET, HEAD")),
        (Target::Manifest { .. }, _) => Ok(wrong_method("GET, HEAD, PUT")),
        (Target::Tags { .. }, _) => Ok(wrong_method("GET")),
        (Target::Uploads { .. }, _) => Ok(wrong_method("POST")),
        (Target::Upload { .. }, _) => Ok(wrong_method("GET, PATCH, PUT, DELETE")),
    }
}

/// Runs work that blocks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, RegistryError> {
    tokio::task::spawn_blocking(work).await?
}

/// A header value from text that is known to be one: digests, numbers, addresses of checked parts.
fn header(text: impl AsRef<str>) -> HeaderValue {
    HeaderValue::from_str(text.as_ref()).unwrap_or(HeaderValue::from_static(""))
}

async fn blob(gateway: &Gateway, digest: Digest, with_body: bool) -> Result<Answer, RegistryError> {
    let store = gateway.store.clone();
    let unknown = RegistryError::BlobUnknown {
        digest: digest.to_string(),
    };
    let (length, body) = if with_body {
        let blob = blocking(move || Ok(store.images.open_blob(digest)?)).await?;
        let (file, length) = blob.ok_or(unknown)?;
        (
            length,
            if length > 0 {
                pieces_of(file)
            } else {
                GatewayBody::empty()
            },
        )
    } else {
        let length = blocking(move || Ok(store.images.intact_blob(digest)?)).await?;
        (length.ok_or(unknown)?, GatewayBody::empty())
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_DIGEST, header(digest.to_string()));
    Ok(response)
}

fn pieces_of(mut file: File) -> GatewayBody {
    let (sender, receiver) = mpsc::channel(2);
    tokio::task::spawn_blocking(move || {
        loop {
            let piece = read_piece(&mut file);
            let last = !matches!(&piece, Ok(piece) if !piece.is_empty());
            if matches!(&piece, Ok(piece) if piece.is_empty()) || sender.blocking_send(piece).is_err() || last
            {
                return;
            }
        }
    });
    GatewayBody::Pieces(receiver)
}

fn read_piece(file: &mut File) -> io::Result<Bytes> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    file.take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    Ok(piece.into())
}

async fn manifest(
    gateway: &Gateway,
    repository: String,
    selector: Selector,
    with_body: bool,
) -> Result<Answer, RegistryError> {
    let store = gateway.store.clone();
    let reference = selector.to_string();
    let manifest = blocking(move || Ok(store.images.manifest(&repository, &selector)?)).await?;
    let manifest = manifest.ok_or(RegistryError::ManifestUnknown { reference })?;
    let length = manifest.bytes.len();
    let mut response = Response::new(if with_body {
        GatewayBody::full(manifest.bytes)
    } else {
        GatewayBody::empty()
    });
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CONTENT_TYPE, header(manifest.media_type));
    headers.insert(CONTENT_DIGEST, header(manifest.digest.to_string()));
    Ok(response)
}

async fn put_manifest(
    gateway: &Gateway,
    repository: String,
    selector: Selector,
    request: Request<ClientBody>,
) -> Result<Answer, RegistryError> {
    let media_type = media_type(request.headers());
    let bytes = read_body(request.into_body(), MAX_MANIFEST_BYTES).await?;
    let store = gateway.store.clone();
    let location = format!("/v2/{repository}/manifests/{selector}");
    let digest = blocking(move || {
        Ok(store
            .images
            .put_manifest(&repository, &selector, &media_type, &bytes)?)
    })
    .await?;
    Ok(created(&location, digest))
}

fn media_type(headers: &HeaderMap) -> String {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    media_type
        .unwrap_or("application/vnd.oci.image.manifest.v1+json")
        .to_owned()
}

/// Something was stored under this address.
fn created(location: &str, digest: Digest) -> Answer {
    let mut response = reply::empty(StatusCode::CREATED);
    response
        .headers_mut()
        .insert(http::header::LOCATION, header(location));
    response
        .headers_mut()
        .insert(CONTENT_DIGEST, header(digest.to_string()));
    response
}

async fn tags(gateway: &Gateway, repository: String) -> Result<Answer, RegistryError> {
    let store = gateway.store.clone();
    let name = repository.clone();
    let tags = blocking(move || Ok(store.images.tags(&repository)?)).await?;
    if tags.is_empty() {
        return Err(RegistryError::NameUnknown { repository: name });
    }
    Ok(reply::json(
        StatusCode::OK,
        &serde_json::json!({ "name": name, "tags": tags }),
    ))
}

/// The digest that a request names in its query.
fn digest_parameter(uri: &Uri) -> Result<Option<Digest>, RegistryError> {
    crate::routes::parameter(uri, "digest")
        .map(|text| Ok(text.parse()?))
        .transpose()
}
