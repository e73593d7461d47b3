//! Around each service: how gRPC itself refuses what is too large, and how a large answer travels.
//!
//! Invariant: a client cannot tell this server's gRPC from etcd's where a message is too large; and
//! what an answer costs to encode is never spent on the threads that run the protocol: a large one
//! is encoded on a thread of its own, and travels as the bytes that this gave.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use api::etcdserverpb::{RangeResponse, ResponseHeader};
use axum::http::{HeaderMap, HeaderValue, Request, Response};
use bytes::{BufMut, Bytes, BytesMut};
use http_body::Frame;
use prost::Message;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;
use tonic::{Code, Status};

/// The largest answer; etcd's limit, that of its gRPC library.
const MAX_ANSWER_BYTES: usize = i32::MAX as usize;
/// Compressed or not (1 byte), length (4 bytes).
const MESSAGE_PREFIX_BYTES: usize = 5;

/// A tonic service, with what this module adds.
#[derive(Clone)]
pub(crate) struct AsEtcd<S>(pub(super) S);

impl<S: NamedService> NamedService for AsEtcd<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for AsEtcd<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            if let Some(status) = too_large_as_in_etcd(response.headers()) {
                return Ok(status.into_http());
            }
            if let Some(large) = response.extensions_mut().remove::<Encoded>() {
                *response.body_mut() =
                    Body::new(EncodedBody { encoded: large, sent: Sent::Nothing });
            }
            Ok(response)
        })
    }
}

/// What etcd answers where tonic refused a message for its length; the texts are of tonic 0.14 and
/// of grpc-go.
fn too_large_as_in_etcd(headers: &HeaderMap) -> Option<Status> {
    if headers.get("grpc-status")?.as_bytes() != b"11" {
        return None;
    }
    let status = Status::from_header_map(headers)?;
    let lengths =
        status.message().strip_prefix("Error, decoded message length too large: found ")?;
    let (found, limit) = lengths.strip_suffix(" bytes")?.split_once(" bytes, the limit is: ")?;
    let message = format!("grpc: received message larger than max ({found} vs. {limit})");
    Some(Status::new(Code::ResourceExhausted, message))
}

/// An answer in its encoded form, on its way through tonic: the message beside it is empty.
#[derive(Clone)]
pub(super) struct Encoded {
    /// The message's prefix and its header.
    head: Bytes,
    /// All else.
    rest: Bytes,
}

impl Encoded {
    /// `rest` is what all fields but the header encode to.
    pub(super) fn new(header: Option<ResponseHeader>, rest: Vec<u8>) -> Result<Self, Status> {
        // Every answer of etcd has its header as field 1; so any of them will do for that alone.
        let header = RangeResponse { header, ..Default::default() };
        let bytes = header.encoded_len() + rest.len();
        let length = u32::try_from(bytes).ok().filter(|_| bytes <= MAX_ANSWER_BYTES);
        let length = length.ok_or_else(|| {
            Status::resource_exhausted(format!(
                "grpc: trying to send message larger than max ({bytes} vs. {MAX_ANSWER_BYTES})"
            ))
        })?;
        let mut head = BytesMut::with_capacity(MESSAGE_PREFIX_BYTES + header.encoded_len());
        head.put_u8(0);
        head.put_u32(length);
        header.encode_raw(&mut head);
        Ok(Self { head: head.freeze(), rest: rest.into() })
    }
}

struct EncodedBody {
    encoded: Encoded,
    sent: Sent,
}

enum Sent {
    Nothing,
    Head,
    Message,
    All,
}

impl http_body::Body for EncodedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let (frame, sent) = match self.sent {
            Sent::Nothing => (Frame::data(std::mem::take(&mut self.encoded.head)), Sent::Head),
            Sent::Head => (Frame::data(std::mem::take(&mut self.encoded.rest)), Sent::Message),
            Sent::Message => {
                let ok = [("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))];
                (Frame::trailers(HeaderMap::from_iter(ok)), Sent::All)
            }
            Sent::All => return Poll::Ready(None),
        };
        self.sent = sent;
        Poll::Ready(Some(Ok(frame)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Body as _;

    #[test]
    fn tonics_refusal_of_a_long_message_becomes_etcds() {
        let limit = Status::out_of_range(
            "Error, decoded message length too large: found 2200012 bytes, the limit is: 2097152 \
             bytes",
        );
        let response: Response<Body> = limit.into_http();
        let status = too_large_as_in_etcd(response.headers()).expect("it is about lengths");
        assert_eq!(status.code(), Code::ResourceExhausted);
        let message = "grpc: received message larger than max (2200012 vs. 2097152)";
        assert_eq!(status.message(), message);
        let other: Response<Body> = Status::out_of_range("a future revision").into_http();
        assert!(too_large_as_in_etcd(other.headers()).is_none());
        assert!(too_large_as_in_etcd(Response::new(Body::empty()).headers()).is_none());
    }

    #[test]
    fn header_and_rest_together_are_the_message() {
        let kv = api::mvccpb::KeyValue { key: "k".into(), value: "v".into(), ..Default::default() };
        let header = Some(ResponseHeader { revision: 7, member_id: 9, ..Default::default() });
        let whole = RangeResponse { header, kvs: vec![kv], more: true, count: 3 };
        let rest = RangeResponse { header: None, ..whole.clone() }.encode_to_vec();
        let encoded = Encoded::new(whole.header, rest).expect("it is short");
        let mut body = Box::pin(EncodedBody { encoded, sent: Sent::Nothing });
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut data = BytesMut::new();
        let trailers = loop {
            match body.as_mut().poll_frame(&mut context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => data.put(bytes),
                    Err(frame) => break frame.into_trailers().expect("data or trailers"),
                },
                other => panic!("the body ends without trailers: {other:?}"),
            }
        };
        assert_eq!(data[..5], [0, 0, 0, 0, whole.encoded_len() as u8]);
        assert_eq!(RangeResponse::decode(&data[5..]), Ok(whole));
        assert_eq!(trailers["grpc-status"], "0");
    }
}
