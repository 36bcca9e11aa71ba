//! The images in the daemon's store: list, inspect, pull, push, remove, prune, check, and their parts.

use std::io::{self, Write};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use crate::api::{ApiError, percent_encode};
use crate::transport::{Client, RequestError, full};

/// Longest line of a transfer's progress, in bytes.
const LINE_BYTES_MAX: usize = 64 << 10;
/// The header of a credential for a registry, as Docker's clients send it.
const REGISTRY_AUTHENTICATION: &str = "x-registry-auth";
/// Under which repository parts are asked for: they are the same in all.
const ANY_REPOSITORY: &str = "any";

/// A stored image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedImage {
    /// What its names mean.
    pub digest: String,
    /// `REPOSITORY:TAG`.
    #[serde(default)]
    pub names: Vec<String>,
    /// Functions that use it.
    #[serde(default)]
    pub functions: Vec<String>,
    /// Bytes of its configuration and layers.
    #[serde(default)]
    pub bytes: u64,
    /// When it was made, as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Names.
    pub names: Vec<String>,
    /// Number of blobs.
    pub blobs: u64,
    /// Number of programs and root file systems.
    pub derived: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// What a look at everything has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Blobs that were read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Images.
    pub images: u64,
    /// Programs and root file systems.
    pub derived: u64,
    /// What is wrong, a line each.
    pub problems: Vec<String>,
}

/// A line of a transfer.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TransferLine {
    done_bytes: u64,
    total_bytes: u64,
    digest: Option<String>,
    left_out: Option<String>,
    error: Option<String>,
    status: u16,
}

/// Which image is to be pulled, and who asks for it.
#[derive(Debug, Clone, Default)]
pub struct PullSettings {
    /// Only if it is not stored.
    pub missing: bool,
    /// Of an index, the images for other machines too.
    pub all_platforms: bool,
    /// A credential for the registry: the value of the header `X-Registry-Auth`.
    pub credential: Option<HeaderValue>,
}

/// What was transferred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transferred {
    /// The digest of what the name means now.
    pub digest: String,
    /// Platforms of an index whose images were not pushed, for they are not stored.
    pub left_out: Option<String>,
}

/// Why an image could not be transferred.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// There is no answer, or it is a refusal.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The transfer has failed on its way; the message is the gateway's.
    #[error("{message}")]
    Failed {
        /// What the gateway says.
        message: String,
        /// The status that the answer would have had.
        status: u16,
    },
    /// The answer ended without a result.
    #[error("the gateway ended the transfer without a result")]
    NoResult,
    /// A part could not be written.
    #[error("the image could not be written")]
    Write(#[source] io::Error),
}

impl TransferError {
    /// Whether the gateway has no such address: it is not ours.
    #[must_use]
    pub fn is_unknown_address(&self) -> bool {
        matches!(self, Self::Api(ApiError::Refused { status, .. }) if *status == StatusCode::NOT_FOUND)
    }
}

impl From<RequestError> for TransferError {
    fn from(error: RequestError) -> Self {
        Self::Api(error.into())
    }
}

impl Client {
    /// All stored images.
    pub async fn images(&self) -> Result<Vec<ListedImage>, ApiError> {
        self.get("/system/images", "GET /system/images").await
    }

    /// What one is; 404 if it is not stored.
    pub async fn inspect_image(&self, image: &str) -> Result<serde_json::Value, ApiError> {
        let path = format!("/system/images/inspect?image={}", percent_encode(image));
        self.get(&path, "GET /system/images/inspect").await
    }

    /// Removes a name, and what only it needs; 409 if a function uses the image.
    pub async fn remove_image(&self, image: &str) -> Result<Collected, ApiError> {
        let path = format!("/system/images?image={}", percent_encode(image));
        self.call_for(Method::DELETE, &path, &(), "DELETE /system/images")
            .await
    }

    /// Removes what no image and no function needs, and nobody has used for so long.
    pub async fn prune_images(&self, unused_for_seconds: u64) -> Result<Collected, ApiError> {
        let body = serde_json::json!({ "unusedForSeconds": unused_for_seconds });
        let path = "/system/images/prune";
        self.call_for(Method::POST, path, &body, "POST /system/images/prune")
            .await
    }

    /// Reads and checks everything.
    pub async fn check_images(&self) -> Result<CheckReport, ApiError> {
        let path = "/system/images/check";
        self.call_for(Method::POST, path, &(), "POST /system/images/check")
            .await
    }

    /// Lets the daemon pull an image; its digest. `progress` hears how many bytes of how many are there.
    pub async fn pull_image(
        &self,
        image: &str,
        settings: &PullSettings,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<String, TransferError> {
        let body = serde_json::json!({
            "image": image,
            "missing": settings.missing,
            "allPlatforms": settings.all_platforms,
        });
        let credential = settings.credential.as_ref();
        let transferred = self
            .transfer("/system/images/pull", &body, credential, progress)
            .await?;
        Ok(transferred.digest)
    }

    /// Lets the daemon push an image to another registry. `credential` is for that one, as in [`PullSettings`].
    pub async fn push_image(
        &self,
        image: &str,
        destination: &str,
        credential: Option<&HeaderValue>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Transferred, TransferError> {
        let body = serde_json::json!({ "image": image, "destination": destination });
        self.transfer("/system/images/push", &body, credential, progress)
            .await
    }

    async fn transfer(
        &self,
        path: &str,
        body: &serde_json::Value,
        credential: Option<&HeaderValue>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Transferred, TransferError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(http::header::CONTENT_TYPE, "application/json");
        if let Some(credential) = credential {
            request = request.header(REGISTRY_AUTHENTICATION, credential);
        }
        let request = request.body(full(body.to_string()));
        let response = self.checked(request.map_err(RequestError::NotHttp)?).await?;
        let mut lines = Lines::new(response.into_body());
        while let Some(line) = lines.next().await? {
            let line: TransferLine = serde_json::from_slice(&line).map_err(|source| ApiError::Shape {
                call: "POST /system/images",
                source,
            })?;
            if let Some(message) = line.error {
                let status = line.status;
                return Err(TransferError::Failed { message, status });
            }
            progress(line.done_bytes, line.total_bytes);
            if let Some(digest) = line.digest {
                let left_out = line.left_out;
                return Ok(Transferred { digest, left_out });
            }
        }
        Err(TransferError::NoResult)
    }

    /// The manifest with this digest, and its media type.
    pub async fn manifest(&self, digest: &str) -> Result<(Bytes, String), TransferError> {
        let path = format!("/v2/{ANY_REPOSITORY}/manifests/{digest}");
        let response = self.part(&path).await?;
        let kind = response.headers().get(http::header::CONTENT_TYPE);
        let kind = kind
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let body = response.into_body().collect().await.map_err(ApiError::Broken)?;
        Ok((body.to_bytes(), kind))
    }

    /// Writes the blob with this digest to a file. `progress` hears of each piece.
    pub async fn blob(
        &self,
        digest: &str,
        file: &mut (dyn Write + Send),
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), TransferError> {
        let path = format!("/v2/{ANY_REPOSITORY}/blobs/{digest}");
        let mut body = self.part(&path).await?.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(ApiError::Broken)?.into_data() {
                file.write_all(&data).map_err(TransferError::Write)?;
                progress(data.len() as u64);
            }
        }
        Ok(())
    }

    async fn part(&self, path: &str) -> Result<http::Response<Incoming>, TransferError> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .body(full(Bytes::new()));
        Ok(self.checked(request.map_err(RequestError::NotHttp)?).await?)
    }
}

/// The lines of a body.
struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    fn new(body: Incoming) -> Self {
        Self {
            body,
            rest: Vec::new(),
        }
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, TransferError> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let rest = self.rest.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.rest, rest)));
            }
            if self.rest.len() > LINE_BYTES_MAX {
                return Err(TransferError::NoResult);
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame.map_err(ApiError::Broken)?.into_data() {
                        self.rest.extend_from_slice(&data);
                    }
                }
                None => return Ok(None),
            }
        }
    }
}
