//! What can go wrong at the registry, with the codes of the OCI distribution specification.

use std::io;
use std::path::Path;

use http::StatusCode;
use spore_store::{DigestParseError, FinishError, ManifestError, RecordError};

use crate::client_body::ClientBodyError;
use crate::errors::{ApiError, shown};
use crate::reply::{self, Answer};

/// Why a request to the registry failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RegistryError {
    #[error("there is nothing at this address")]
    NoSuchAddress,
    #[error(
        "`{repository}` is not the name of a repository: use lower-case letters, digits and . _ - between them"
    )]
    NameInvalid { repository: String },
    #[error("nothing was pushed to the repository `{repository}`")]
    NameUnknown { repository: String },
    #[error("`{reference}` is neither a tag nor a digest")]
    ReferenceInvalid { reference: String },
    #[error(transparent)]
    DigestInvalid(#[from] DigestParseError),
    #[error("the parameter `digest` is missing")]
    DigestMissing,
    #[error("the blob {digest} was not pushed")]
    BlobUnknown { digest: String },
    #[error("no manifest was pushed as `{reference}`")]
    ManifestUnknown { reference: String },
    #[error("the manifest was refused")]
    Manifest(#[from] ManifestError),
    #[error("the upload is unknown, or another request is writing to it: begin a new one")]
    UploadUnknown,
    #[error("the piece does not begin where the upload has come to, at byte {offset_bytes}")]
    OutOfOrder { offset_bytes: u64 },
    #[error("the blob is longer than {limit_bytes} bytes")]
    TooLong { limit_bytes: u64 },
    #[error("{limit} uploads are open already: finish or cancel one")]
    TooManyUploads { limit: usize },
    #[error("the upload could not be finished")]
    Finish(#[from] FinishError),
    #[error("the request's body could not be read")]
    Body(#[from] ClientBodyError),
    #[error(transparent)]
    Manifested(#[from] ApiError),
    #[error("the image could not be recorded")]
    Record(#[from] RecordError),
    #[error("the blob could not be stored or read")]
    Io(#[from] io::Error),
    #[error("a task of the daemon was lost")]
    Lost(#[from] tokio::task::JoinError),
}

impl RegistryError {
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NoSuchAddress => (StatusCode::NOT_FOUND, "UNSUPPORTED"),
            Self::NameInvalid { .. } => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            Self::NameUnknown { .. } => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            Self::ReferenceInvalid { .. } => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            Self::DigestInvalid(_) | Self::DigestMissing => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            Self::Finish(FinishError::DigestMismatch { .. }) => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            Self::BlobUnknown { .. } => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            Self::ManifestUnknown { .. } => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Self::Manifest(ManifestError::UnknownBlob { .. }) => {
                (StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN")
            }
            Self::Manifest(ManifestError::Invalid(_)) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            Self::Manifest(ManifestError::DigestMismatch { .. }) => {
                (StatusCode::BAD_REQUEST, "DIGEST_INVALID")
            }
            Self::UploadUnknown => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            Self::OutOfOrder { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
            Self::TooLong { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
            Self::Manifested(ApiError::TooLong { .. }) => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
            Self::TooManyUploads { .. } => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            Self::Body(error) => (error.status(), "BLOB_UPLOAD_INVALID"),
            Self::Manifested(_) => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
            Self::Manifest(_) | Self::Finish(_) | Self::Record(_) | Self::Io(_) | Self::Lost(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN")
            }
        }
    }

    /// The answer to the caller; `data` is the data folder.
    pub(super) fn answer(&self, data: &Path) -> Answer {
        let (status, code) = self.status_and_code();
        let (status, message, retry_helps) = shown(self, status, data);
        let response = reply::json(
            status,
            &serde_json::json!({ "errors": [{ "code": code, "message": message }] }),
        );
        if retry_helps {
            reply::retry_soon(response)
        } else {
            response
        }
    }
}
