//! The images in the store: `/system/images`, an addition of ours in the manner of the functions' API.
//!
//! ```text
//!  GET    /system/images                     all of them
//!  GET    /system/images/inspect?image=NAME  what one is
//!  DELETE /system/images?image=NAME          a name, and what only it needs
//!  POST   /system/images/pull                {"image", "missing", "allPlatforms"} ──> lines of JSON: how far it is, then its digest
//!  POST   /system/images/push                {"image", "destination"} ──> the same, and which platforms' images were not stored
//!  POST   /system/images/prune               {"unusedForSeconds"}
//!  POST   /system/images/check
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use spore_registry::{
    ClientCredential, Platforms, Progress, Pushed, Registries, RegistryError, short_repository,
};
use spore_store::{Collected, Digest, ImageReference, Selector, Store};
use tokio::sync::mpsc;

use crate::body::GatewayBody;
use crate::client_body::ClientBody;
use crate::errors::{ApiError, one_line};
use crate::reply::{self, Answer};
use crate::routes::{Gateway, parameter};
use crate::system::read_json;

/// How often a transfer tells how far it is.
const PROGRESS_PAUSE: Duration = Duration::from_millis(200);

/// How often images are removed that nothing needs.
const COLLECTION_PAUSE: Duration = Duration::from_secs(3600);
/// How long they have been unused by then: a push names its layers last.
const UNUSED_FOR: Duration = Duration::from_secs(3600);

/// Removes what every new version of a function leaves behind, now and then until the daemon stops.
pub(crate) async fn collect(gateway: Arc<Gateway>) {
    let mut stopping = gateway.stopping.clone();
    loop {
        tokio::select! {
            () = tokio::time::sleep(COLLECTION_PAUSE) => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        let store = gateway.store.clone();
        let prune = move || store.prune_images(UNUSED_FOR);
        match gateway.functions.unchanged(prune).await {
            Ok(Ok(collected)) if collected.bytes > 0 => {
                let Collected {
                    blobs,
                    derived,
                    bytes,
                    ..
                } = collected;
                tracing::info!(blobs, derived, bytes, "images that nothing needs were removed");
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!("{}", one_line(&error)),
            Err(error) => tracing::error!("{}", one_line(&error)),
        }
    }
}

/// Finds images by the names that users give them.
#[derive(Clone)]
pub(crate) struct Names {
    store: Arc<Store>,
    /// None if nothing is ever pulled.
    registries: Option<Registries>,
}

/// Where an image is found, or could be.
pub(crate) struct Found {
    pub(crate) repository: String,
    pub(crate) selector: Selector,
    pub(crate) digest: Digest,
}

impl Names {
    pub(crate) fn new(store: Arc<Store>, registries: Option<Registries>) -> Self {
        Self { store, registries }
    }

    /// The stored image of that name: of a short one, first one that was pushed here, then one that was pulled; of one that was
    /// written out (`docker.io/library/hello`, as other tools send it), the other way round.
    pub(crate) async fn find(&self, image: &str, own_names: &[String]) -> Result<Option<Found>, ApiError> {
        let reference: ImageReference = image.parse()?;
        let is_own = reference
            .host
            .as_ref()
            .is_some_and(|host| own_names.contains(host));
        let mut repositories = Vec::new();
        if is_own {
            repositories.push(reference.repository.clone());
        } else {
            repositories.extend(short_repository(&reference).map(str::to_owned));
            let remote = match &self.registries {
                Some(registries) => registries.remote_name(&reference),
                None => Registries::new(Default::default()).remote_name(&reference),
            };
            let pulled = remote.stored_repository();
            let place = if reference.host.is_none() {
                repositories.len()
            } else {
                0
            };
            repositories.insert(place, pulled);
        }
        let (store, selector) = (self.store.clone(), reference.selector);
        let find = move || {
            for repository in repositories {
                if let Some(digest) = store.images.resolve(&repository, &selector)? {
                    store.images.note_used(digest);
                    return Ok(Some(Found {
                        repository,
                        selector,
                        digest,
                    }));
                }
            }
            Ok::<_, ApiError>(None)
        };
        tokio::task::spawn_blocking(find).await?
    }

    /// The stored image of that name.
    async fn found(&self, image: &str, own_names: &[String]) -> Result<Found, ApiError> {
        self.find(image, own_names)
            .await?
            .ok_or_else(|| ApiError::NoSuchImage {
                image: image.to_owned(),
            })
    }

    /// The image of that name, pulled if it is not stored.
    pub(crate) async fn find_or_pull(&self, image: &str, own_names: &[String]) -> Result<Digest, ApiError> {
        match self.find(image, own_names).await? {
            Some(found) => Ok(found.digest),
            None => {
                let progress = Arc::default();
                self.pull(image, own_names, Platforms::Here, &progress).await
            }
        }
    }

    /// The same for a client who has a credential for a registry.
    fn on_behalf_of(&self, credential: Option<&HeaderValue>) -> Result<Self, ApiError> {
        let mut names = self.clone();
        if let (Some(value), Some(registries)) = (credential, &self.registries) {
            let client = ClientCredential::from_header(value)?;
            names.registries = Some(registries.on_behalf_of(client));
        }
        Ok(names)
    }

    /// Pulls an image, whether it is stored or not.
    async fn pull(
        &self,
        image: &str,
        own_names: &[String],
        platforms: Platforms,
        progress: &Arc<Progress>,
    ) -> Result<Digest, ApiError> {
        let reference: ImageReference = image.parse()?;
        let is_own = reference
            .host
            .as_ref()
            .is_some_and(|host| own_names.contains(host));
        let (Some(registries), false) = (&self.registries, is_own) else {
            return Err(ApiError::UnknownImage {
                image: image.to_owned(),
                address: own_names.first().cloned().unwrap_or_default(),
                repository: reference.repository,
            });
        };
        let name = registries.remote_name(&reference);
        tracing::info!(image, %name, "an image is pulled");
        registries
            .pull_platforms(&self.store.images, &name, platforms, progress)
            .await
            .map_err(|source| ApiError::Pull {
                image: image.to_owned(),
                name: name.to_string(),
                source: Box::new(source),
            })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedImage {
    digest: String,
    names: Vec<String>,
    functions: Vec<String>,
    /// Bytes of its configuration and layers, as they are stored.
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
}

/// `GET /system/images`
#[utoipa::path(
    get,
    path = "/system/images",
    responses(
        (status = 200, description = "The images", body = serde_json::Value),
    )
)]
pub(crate) async fn list(gateway: &Gateway) -> Result<Answer, ApiError> {
    let store = gateway.store.clone();
    let list = move || -> Result<Vec<ListedImage>, ApiError> {
        let images = store.named_images()?.into_iter();
        let listed = images.map(|image| {
            // What is damaged is listed too.
            let outline = store.images.outline(image.digest).ok();
            ListedImage {
                digest: image.digest.to_string(),
                names: image.names,
                functions: image.functions,
                bytes: outline.as_ref().map_or(0, |outline| outline.bytes),
                created: outline.and_then(|outline| outline.created),
            }
        });
        Ok(listed.collect())
    };
    Ok(reply::json(
        StatusCode::OK,
        &tokio::task::spawn_blocking(list).await??,
    ))
}

fn image_of(uri: &Uri) -> Result<String, ApiError> {
    parameter(uri, "image")
        .filter(|image| !image.is_empty())
        .ok_or(ApiError::NoImageNamed)
}

/// `GET /system/images/inspect`
#[utoipa::path(
    get,
    path = "/system/images/inspect",
    params(("image" = String, Query, description = "NAME[:TAG] or NAME@DIGEST")),
    responses(
        (status = 200, description = "What it is", body = serde_json::Value),
        (status = 400, description = "The name or the body is not valid"),
        (status = 404, description = "There is no such image"),
        (status = 422, description = "No image is named"),
    )
)]
pub(crate) async fn inspect(gateway: &Gateway, uri: &Uri, own_names: &[String]) -> Result<Answer, ApiError> {
    let image = image_of(uri)?;
    let found = gateway.names.found(&image, own_names).await?;
    let store = gateway.store.clone();
    let inspect = move || -> Result<serde_json::Value, ApiError> {
        let described = store.images.describe(found.digest);
        let described = described.map_err(|source| ApiError::Inspect { image, source })?;
        let named = store
            .named_images()?
            .into_iter()
            .find(|image| image.digest == found.digest);
        let mut value = serde_json::to_value(&described).map_err(ApiError::BadJson)?;
        value["names"] = named.as_ref().map(|image| image.names.clone()).into();
        value["functions"] = named.map(|image| image.functions).into();
        Ok(value)
    };
    Ok(reply::json(
        StatusCode::OK,
        &tokio::task::spawn_blocking(inspect).await??,
    ))
}

/// `DELETE /system/images`
#[utoipa::path(
    delete,
    path = "/system/images",
    params(("image" = String, Query, description = "NAME[:TAG] or NAME@DIGEST")),
    responses(
        (status = 200, description = "What was removed", body = serde_json::Value),
        (status = 400, description = "The name or the body is not valid"),
        (status = 404, description = "There is no such image"),
        (status = 409, description = "A function uses it"),
        (status = 422, description = "No image is named"),
    )
)]
pub(crate) async fn remove(gateway: &Gateway, uri: &Uri, own_names: &[String]) -> Result<Answer, ApiError> {
    let found = gateway.names.found(&image_of(uri)?, own_names).await?;
    let store = gateway.store.clone();
    let remove = move || store.remove_image(&found.repository, &found.selector);
    let collected = gateway.functions.unchanged(remove).await??;
    Ok(reply::json(StatusCode::OK, &shown(&collected)))
}

fn shown(collected: &Collected) -> serde_json::Value {
    serde_json::json!({
        "names": collected.names,
        "blobs": collected.blobs,
        "derived": collected.derived,
        "bytes": collected.bytes,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PruneRequest {
    unused_for_seconds: u64,
}

/// `POST /system/images/prune`
#[utoipa::path(
    post,
    path = "/system/images/prune",
    request_body = serde_json::Value,
    responses(
        (status = 200, description = "What was removed", body = serde_json::Value),
        (status = 400, description = "The body is not valid"),
        (status = 413, description = "The body is too long"),
    )
)]
pub(crate) async fn prune(gateway: &Gateway, body: ClientBody) -> Result<Answer, ApiError> {
    let PruneRequest { unused_for_seconds } = read_json(body).await?;
    let store = gateway.store.clone();
    let prune = move || store.prune_images(Duration::from_secs(unused_for_seconds));
    let collected = gateway.functions.unchanged(prune).await??;
    Ok(reply::json(StatusCode::OK, &shown(&collected)))
}

/// `POST /system/images/check`
#[utoipa::path(
    post,
    path = "/system/images/check",
    responses(
        (status = 200, description = "What is wrong, if anything", body = serde_json::Value),
    )
)]
pub(crate) async fn check(gateway: &Gateway) -> Result<Answer, ApiError> {
    let store = gateway.store.clone();
    let report = tokio::task::spawn_blocking(move || store.check_images()).await??;
    let value = serde_json::json!({
        "blobs": report.blobs,
        "bytes": report.bytes,
        "images": report.images,
        "derived": report.derived,
        "problems": report.problems,
    });
    Ok(reply::json(StatusCode::OK, &value))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PullRequest {
    image: String,
    /// Whether one that is stored will do.
    #[serde(default)]
    missing: bool,
    /// Whether of an index the images for other machines come too.
    #[serde(default)]
    all_platforms: bool,
}

/// `POST /system/images/pull`
#[utoipa::path(
    post,
    path = "/system/images/pull",
    request_body = serde_json::Value,
    responses(
        (status = 200, description = "Lines of JSON: how far it is, then the digest or an error", body = String),
        (status = 400, description = "The body is not valid"),
        (status = 413, description = "The body is too long"),
    )
)]
pub(crate) async fn pull(
    gateway: &Gateway,
    body: ClientBody,
    own_names: Vec<String>,
    credential: Option<&HeaderValue>,
) -> Result<Answer, ApiError> {
    let PullRequest {
        image,
        missing,
        all_platforms,
    } = read_json(body).await?;
    image.parse::<ImageReference>()?;
    let names = gateway.names.on_behalf_of(credential)?;
    let data = gateway.data.clone();
    let platforms = if all_platforms {
        Platforms::All
    } else {
        Platforms::Here
    };
    let whole = |digest| Pushed {
        digest,
        left_out: None,
    };
    Ok(transfer(data, move |progress| async move {
        if missing && let Some(found) = names.find(&image, &own_names).await? {
            return Ok(whole(found.digest));
        }
        names
            .pull(&image, &own_names, platforms, &progress)
            .await
            .map(whole)
    }))
}

#[derive(Deserialize)]
struct PushRequest {
    image: String,
    destination: String,
}

/// `POST /system/images/push`
#[utoipa::path(
    post,
    path = "/system/images/push",
    request_body = serde_json::Value,
    responses(
        (status = 200, description = "Lines of JSON: how far it is, then the digest or an error", body = String),
        (status = 400, description = "The name or the body is not valid"),
        (status = 404, description = "There is no such image"),
        (status = 413, description = "The body is too long"),
    )
)]
pub(crate) async fn push(
    gateway: &Gateway,
    body: ClientBody,
    own_names: &[String],
    credential: Option<&HeaderValue>,
) -> Result<Answer, ApiError> {
    let PushRequest { image, destination } = read_json(body).await?;
    let target: ImageReference = destination.parse()?;
    let found = gateway.names.found(&image, own_names).await?;
    let names = gateway.names.on_behalf_of(credential)?;
    let registries = names.registries.ok_or(ApiError::NoRegistries)?;
    let name = registries.remote_name(&target);
    let images = gateway.store.images.clone();
    Ok(transfer(gateway.data.clone(), move |progress| async move {
        let pushed = registries.push(&images, found.digest, &name, &progress).await;
        pushed.map_err(|source: RegistryError| ApiError::Push {
            image,
            name: name.to_string(),
            source: Box::new(source),
        })
    }))
}

/// An answer whose lines tell how far a transfer is, and in the end how it went. It is given up when nobody reads them.
fn transfer<F>(data: std::path::PathBuf, work: impl FnOnce(Arc<Progress>) -> F) -> Answer
where
    F: Future<Output = Result<Pushed, ApiError>> + Send + 'static,
{
    let progress = Arc::new(Progress::default());
    let work = work(progress.clone());
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let line = |value: serde_json::Value| Ok(Bytes::from(format!("{value}\n")));
        let mut work = std::pin::pin!(work);
        let mut pause = tokio::time::interval(PROGRESS_PAUSE);
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                _ = pause.tick() => {
                    let (done, total) = progress.now();
                    let now = serde_json::json!({ "doneBytes": done, "totalBytes": total });
                    if sender.send(line(now)).await.is_err() {
                        return;
                    }
                }
            }
        };
        let (done, total) = progress.now();
        let last = match result {
            Ok(Pushed { digest, left_out }) => {
                let mut last = serde_json::json!({
                    "doneBytes": done, "totalBytes": total, "digest": digest.to_string(),
                });
                if let Some(platforms) = left_out {
                    last["leftOut"] = platforms.into();
                }
                last
            }
            Err(error) => {
                let (status, message, _) = error.shown(&data);
                tracing::debug!(error = one_line(&error), "a transfer has failed");
                serde_json::json!({ "status": status.as_u16(), "error": message })
            }
        };
        // Nobody may read it any more.
        let _ = sender.send(line(last)).await;
    });
    let mut response = Response::new(GatewayBody::Pieces(receiver));
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
