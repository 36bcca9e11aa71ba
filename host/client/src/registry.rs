//! Pushing an image to the gateway's registry, by the OCI distribution specification.
//!
//! ```text
//!  each blob:  HEAD ──200──> done
//!                └───404──> POST uploads/ ──202 Location──> PUT Location?digest= ──201──> done
//!  then:       PUT manifests/TAG
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{Method, Request, StatusCode};

use crate::api::{ApiError, percent_encode};
use crate::transport::{Client, RequestBody, RequestError, from_file, full, with_progress};

/// A blob or manifest of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Media type.
    pub media_type: String,
    /// The content itself.
    pub data: Data,
}

/// Where a content's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// In memory.
    Bytes(Bytes),
    /// In a file, which is read as it is sent.
    File {
        /// The file.
        path: PathBuf,
        /// Its length, in bytes.
        length: u64,
    },
}

impl Data {
    /// Length, in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }

    fn body(&self, progress: Arc<dyn Fn(u64) + Send + Sync>) -> RequestBody {
        match self {
            Self::Bytes(bytes) => with_progress(bytes.clone(), progress),
            Self::File { path, length } => from_file(path.clone(), *length, progress),
        }
    }
}

/// Why an image could not be pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry could not be asked or refused.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The registry did not say where to upload to.
    #[error("the registry accepted an upload but did not say where to send it")]
    NoLocation,
    /// The registry wants the upload elsewhere.
    #[error("the registry wants the upload sent to {location}, which is not below {url}")]
    ForeignLocation {
        /// Where it wants it.
        location: String,
        /// Address of the gateway.
        url: String,
    },
}

impl From<RequestError> for PushError {
    fn from(error: RequestError) -> Self {
        Self::Api(error.into())
    }
}

impl Client {
    /// Pushes an image as `repository:tag`: first the blobs that the registry does not have, then the manifest that
    /// names them. `progress` hears of every byte that need not be sent any more.
    pub async fn push(
        &self,
        repository: &str,
        tag: &str,
        blobs: &[Content],
        manifest: &Content,
        progress: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<(), PushError> {
        for blob in blobs {
            if self.has_blob(repository, blob).await? {
                progress(blob.data.length());
            } else {
                self.upload(repository, blob, progress.clone()).await?;
            }
        }
        let request = Request::builder()
            .method(Method::PUT)
            .uri(format!("/v2/{repository}/manifests/{tag}"))
            .header(CONTENT_TYPE, &manifest.media_type)
            .body(manifest.data.body(Arc::new(|_| {})))
            .map_err(RequestError::NotHttp)?;
        self.checked(request).await?;
        progress(manifest.data.length());
        Ok(())
    }

    async fn has_blob(&self, repository: &str, blob: &Content) -> Result<bool, PushError> {
        let request = Request::builder()
            .method(Method::HEAD)
            .uri(format!("/v2/{repository}/blobs/{}", blob.digest))
            .body(full(Bytes::new()))
            .map_err(RequestError::NotHttp)?;
        match self.checked(request).await {
            Ok(_) => Ok(true),
            Err(ApiError::Refused {
                status: StatusCode::NOT_FOUND,
                ..
            }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn upload(
        &self,
        repository: &str,
        blob: &Content,
        progress: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<(), PushError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/v2/{repository}/blobs/uploads/"))
            .body(full(Bytes::new()))
            .map_err(RequestError::NotHttp)?;
        let response = self.checked(request).await?;
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|location| location.to_str().ok());
        let path = self.upload_path(location.ok_or(PushError::NoLocation)?)?;
        let separator = if path.contains('?') { '&' } else { '?' };
        let request = Request::builder()
            .method(Method::PUT)
            .uri(format!(
                "{path}{separator}digest={}",
                percent_encode(&blob.digest)
            ))
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(blob.data.body(progress))
            .map_err(RequestError::NotHttp)?;
        self.checked(request).await?;
        Ok(())
    }

    /// The path below the gateway's address that a `Location` names, which may be relative or absolute.
    fn upload_path(&self, location: &str) -> Result<String, PushError> {
        let url = self.url();
        let path = location.strip_prefix(&url).unwrap_or(location);
        if path.starts_with('/') {
            Ok(path.to_owned())
        } else {
            Err(PushError::ForeignLocation {
                location: location.to_owned(),
                url,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_must_lead_to_the_gateway() {
        let client = Client::new("http://127.0.0.1:8080").unwrap();
        assert_eq!(
            client.upload_path("/v2/a/blobs/uploads/1").unwrap(),
            "/v2/a/blobs/uploads/1"
        );
        assert_eq!(
            client.upload_path("http://127.0.0.1:8080/v2/x?s=1").unwrap(),
            "/v2/x?s=1"
        );
        for foreign in ["http://elsewhere/v2/x", "http://127.0.0.1:80801/v2/x", "v2/x", ""] {
            assert!(
                matches!(
                    client.upload_path(foreign),
                    Err(PushError::ForeignLocation { .. })
                ),
                "{foreign}"
            );
        }
    }
}
