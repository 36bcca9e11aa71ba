//! `GET /system/logs`: a function's log as one JSON object a line.

use std::io;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, Uri};
use jiff::Timestamp;
use serde::Serialize;
use spore_store::{LogQuery, LogReader, LogRecord};
use tokio::sync::{mpsc, watch};
use utoipa::ToSchema;

use crate::body::GatewayBody;
use crate::errors::ApiError;
use crate::names::FunctionId;
use crate::reply::Answer;
use crate::routes::{Gateway, parameter};

/// Lines that go out in one piece, at most.
const LINES_PER_PIECE: usize = 256;

/// A line in OpenFaaS's shape.
#[derive(Serialize, ToSchema)]
#[schema(as = LogMessage)]
pub(crate) struct Message<'a> {
    name: &'a str,
    namespace: &'a str,
    instance: &'a str,
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    text: &'a str,
}

/// Answers `GET /system/logs?name=…`.
#[utoipa::path(
    get,
    path = "/system/logs",
    params(("name" = String, Query, description = "NAME or NAME.NAMESPACE"), ("namespace" = Option<String>, Query, description = "Namespace; openfaas-fn unless given"), ("instance" = Option<String>, Query, description = "Only lines of this instance"), ("tail" = Option<i64>, Query, description = "Only so many lines, the latest; all if it is not above 0"), ("since" = Option<String>, Query, description = "Only lines since then, RFC 3339"), ("follow" = Option<bool>, Query, description = "Whether to go on with lines as they are written")),
    responses(
        (status = 200, description = "One JSON object a line", body = Message<'static>, content_type = "application/x-ndjson"),
        (status = 404, description = "There is no such function"),
        (status = 422, description = "A parameter is not valid"),
    )
)]
pub(crate) async fn answer(gateway: &Gateway, uri: &Uri) -> Result<Answer, ApiError> {
    let name = parameter(uri, "name").unwrap_or_default();
    let query = query(uri)?;
    let function = gateway.functions.named(&FunctionId::new(&name, "", uri))?;
    let mut reader = function.log.read(query);
    // What fails at once is told with a status, not by a body that breaks off.
    let first = reader.next().await.map_err(ApiError::Log)?;
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(send(
        first,
        reader,
        function.id.clone(),
        sender,
        gateway.stopping.clone(),
    ));
    let mut response = Response::new(GatewayBody::Pieces(receiver));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

fn query(uri: &Uri) -> Result<LogQuery, ApiError> {
    let tail = match parameter(uri, "tail").filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => {
            let number: i64 = text.parse().map_err(|_| ApiError::BadParameter {
                parameter: "tail",
                value: text,
            })?;
            usize::try_from(number).ok().filter(|lines| *lines > 0)
        }
    };
    let since = match parameter(uri, "since").filter(|text| !text.is_empty()) {
        None => None,
        // A space is what an unescaped + of a time zone turns into.
        Some(text) => match text.replace(' ', "+").parse() {
            Ok(since) => Some(since),
            Err(_) => {
                return Err(ApiError::BadParameter {
                    parameter: "since",
                    value: text,
                });
            }
        },
    };
    let follow = matches!(
        parameter(uri, "follow").as_deref(),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True")
    );
    Ok(LogQuery {
        tail,
        since,
        instance: parameter(uri, "instance").filter(|text| !text.is_empty()),
        follow,
    })
}

/// Sends the log from what was read first until its end, the client's or the daemon's.
async fn send(
    first: Option<Vec<LogRecord>>,
    mut reader: LogReader,
    id: FunctionId,
    sender: mpsc::Sender<io::Result<Bytes>>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut first = Some(first);
    loop {
        if let Some(records) = first.take() {
            let Some(records) = records else { return };
            if !send_pieces(&records, &id, &sender).await {
                return;
            }
        }
        let records = tokio::select! {
            records = reader.next() => records,
            () = sender.closed() => return,
            // An error means that the daemon is gone already.
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        let records = match records {
            Ok(Some(records)) => records,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(function = id.key(), %error, "a log could not be read");
                // The client sees its connection break; if it has gone, nobody needs to.
                let _ = sender.send(Err(error)).await;
                return;
            }
        };
        if !send_pieces(&records, &id, &sender).await {
            return;
        }
    }
}

/// Whether the client is still there.
async fn send_pieces(
    records: &[LogRecord],
    id: &FunctionId,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> bool {
    for records in records.chunks(LINES_PER_PIECE) {
        if sender.send(encode(records, id)).await.is_err() {
            return false;
        }
    }
    true
}

fn encode(records: &[LogRecord], id: &FunctionId) -> io::Result<Bytes> {
    let mut piece = Vec::new();
    for record in records {
        let message = Message {
            name: &id.name,
            namespace: &id.namespace,
            instance: &record.instance,
            timestamp: record.time,
            text: &record.text,
        };
        serde_json::to_writer(&mut piece, &message)?;
        piece.push(b'\n');
    }
    Ok(piece.into())
}
