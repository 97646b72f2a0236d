//! Every call, seen from outside: counted by method and status, and known to its connection while it
//! is open.

use std::{
    collections::HashSet,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::{Code, body::Body};
use tower::{Layer, Service};

use crate::{
    error::Error,
    metrics::{CallLabels, Metrics},
    peer::{OpenCall, Peer},
};

/// Every method that is not ours: anybody can call anything.
const UNKNOWN: &str = "unknown";

/// Counts the calls of a server.
#[derive(Clone)]
pub(super) struct CountCalls {
    metrics: Arc<Metrics>,
    /// `/package.Service/Method`.
    methods: Arc<HashSet<String>>,
}

impl CountCalls {
    /// Knows the methods of these descriptors by name.
    pub(super) fn new(metrics: Arc<Metrics>, descriptors: &[&[u8]]) -> Result<Self, Error> {
        let mut methods = HashSet::new();
        for descriptors in descriptors {
            let set = FileDescriptorSet::decode(*descriptors)
                .map_err(|_| Error::Internal("the protocol's descriptors cannot be read"))?;
            for file in &set.file {
                for service in &file.service {
                    let of_service = |method: &prost_types::MethodDescriptorProto| {
                        format!("/{}.{}/{}", file.package(), service.name(), method.name())
                    };
                    methods.extend(service.method.iter().map(of_service));
                }
            }
        }
        Ok(Self { metrics, methods: Arc::new(methods) })
    }

    /// The label of a method: `Service/Method` without the package.
    fn label(&self, path: &str) -> String {
        let known = if self.methods.contains(path) { path } else { UNKNOWN };
        known.rsplit('.').next().unwrap_or(known).to_owned()
    }
}

impl<S> Layer<S> for CountCalls {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Counting<S> {
        Counting { inner, counter: self.clone() }
    }
}

/// A service whose calls are counted.
#[derive(Clone)]
pub(super) struct Counting<S> {
    inner: S,
    counter: CountCalls,
}

impl<S> Service<Request<Body>> for Counting<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Counted>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Counted>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut call = Call {
            metrics: self.counter.metrics.clone(),
            method: self.counter.label(request.uri().path()),
            code: None,
            _open: request.extensions().get::<Peer>().map(Peer::open),
        };
        call.metrics.calls_open.inc();
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            call.code = code(response.headers());
            Ok(response.map(|body| Counted { body, call }))
        })
    }
}

/// A call that is counted once it is dropped.
struct Call {
    metrics: Arc<Metrics>,
    method: String,
    /// As it was said; a call that nobody let end was canceled.
    code: Option<Code>,
    _open: Option<OpenCall>,
}

impl Drop for Call {
    fn drop(&mut self) {
        let code = name(self.code.unwrap_or(Code::Cancelled));
        let labels = CallLabels { method: std::mem::take(&mut self.method), code };
        self.metrics.calls.get_or_create(&labels).inc();
        self.metrics.calls_open.dec();
    }
}

/// A body that listens for the status behind it.
pub(super) struct Counted {
    body: Body,
    call: Call,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.call.code = code(trailers);
                }
            }
            Some(Err(status)) => self.call.code = Some(status.code()),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|value| Code::from_bytes(value.as_bytes()))
}

fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "canceled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_methods_of_ours_become_labels() {
        let calls = CountCalls::new(Arc::default(), &[buildr_proto::DESCRIPTORS]).unwrap();
        assert_eq!(calls.label("/buildr.v1.BuildService/Submit"), "BuildService/Submit");
        assert_eq!(calls.label("/buildr.v1.BuildService/Submit2"), "unknown");
        assert_eq!(calls.label("/../../etc/passwd"), "unknown");
    }
}
