//! Unary gRPC calls and streams over a bare HTTP/2 connection: framing, status, and what an error
//! allows one to conclude.
//!
//! Invariant: `fail` only where the server provably did nothing. Whatever happens to a call after
//! its request was handed to HTTP/2 is unknown, unless the server itself says otherwise below.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use history::Outcome;
use http::{HeaderValue, Method, Request, Uri, header};
use prost::Message;
use tonic::{Code, Status};

use super::{CallError, NotSent};

/// A method of a service at one authority; made once, used for every call.
#[derive(Clone, Debug)]
pub(super) struct MethodUri(Uri);

impl MethodUri {
    pub(super) fn new(authority: &str, path: &'static str) -> Result<Self, http::Error> {
        let uri =
            Uri::builder().scheme("http").authority(authority).path_and_query(path).build()?;
        Ok(Self(uri))
    }
}

/// Hands the request to the connection. An error here means that no frame of it was made.
pub(super) fn start(
    connection: &mut SendRequest<Bytes>,
    method: &MethodUri,
    message: &impl Message,
) -> Result<ResponseFuture, NotSent> {
    let (response, mut body) = open(connection, method)?;
    // From here on frames may be on their way: an error is the response's to tell.
    let _ = body.send_data(frame(message), true);
    Ok(response)
}

/// Opens a stream for requests; the response is where the answers come.
pub(super) fn open(
    connection: &mut SendRequest<Bytes>,
    method: &MethodUri,
) -> Result<(ResponseFuture, SendStream<Bytes>), NotSent> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = method.0.clone();
    let headers = request.headers_mut();
    headers.reserve(3);
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("raftbench"));
    connection
        .send_request(request, false)
        .map_err(|error| NotSent(format!("the connection takes no requests: {error}")))
}

/// Waits until the server has opened its side of a stream.
pub(super) async fn opened(response: ResponseFuture) -> Result<RecvStream, Status> {
    let broken = |error: h2::Error| Status::unavailable(format!("the connection broke: {error}"));
    let (head, body) = response.await.map_err(broken)?.into_parts();
    match Status::from_header_map(&head.headers) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ if head.status != http::StatusCode::OK => {
            Err(Status::unknown(format!("HTTP status {}", head.status)))
        }
        _ => Ok(body),
    }
}

/// Waits for the answer.
pub(super) async fn finish<M: Message + Default>(response: ResponseFuture) -> Result<M, CallError> {
    let (head, mut body) = response.await.map_err(broken)?.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers) {
        check(&status)?;
    }
    if head.status != http::StatusCode::OK {
        return Err(CallError::unknown(format!("HTTP status {}", head.status)));
    }
    let message = read_body(&mut body).await.map_err(broken)?;
    let trailers = body.trailers().await.map_err(broken)?;
    match trailers.as_ref().and_then(Status::from_header_map) {
        Some(status) => check(&status)?,
        None => return Err(CallError::unknown("the answer ended without a gRPC status")),
    }
    unframe(message)
}

/// What a status allows one to conclude.
///
/// Fail, because the server refuses before it proposes: the codes for malformed requests, and
/// etcd's "too many requests" (which 3.4 and 3.5 send with code Unknown). Not fail: "no space",
/// since etcd may report it for a write that it applied; "no leader", "request timed out",
/// "leader changed", "proposal dropped", since a proposal may be under way.
pub(super) fn outcome_of(status: &Status) -> Outcome {
    let refused = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => true,
        Code::ResourceExhausted | Code::Unknown => {
            status.message() == "etcdserver: too many requests"
        }
        _ => false,
    };
    if refused { Outcome::Fail } else { Outcome::Unknown }
}

fn check(status: &Status) -> Result<(), CallError> {
    if status.code() == Code::Ok {
        return Ok(());
    }
    Err(call_error(status))
}

/// An error as its caller sees it.
pub(super) fn call_error(status: &Status) -> CallError {
    let text = format!("{:?}: {}", status.code(), status.message());
    CallError { outcome: outcome_of(status), text }
}

/// The messages of a stream.
pub(super) struct Frames {
    body: RecvStream,
    /// Of messages that are not whole yet.
    received: BytesMut,
}

impl Frames {
    pub(super) fn of(body: RecvStream) -> Self {
        Self { body, received: BytesMut::new() }
    }

    /// The next one; `None`: the stream ended well.
    pub(super) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, CallError> {
        loop {
            if let Some(message) = split_frame(&mut self.received)? {
                return M::decode(message).map(Some).map_err(malformed);
            }
            let Some(part) = self.body.data().await else { break };
            let part = part.map_err(broken)?;
            self.body.flow_control().release_capacity(part.len()).map_err(broken)?;
            self.received.extend_from_slice(&part);
        }
        if let Some(status) = self.body.trailers().await.map_err(broken)? {
            check(&Status::from_header_map(&status).unwrap_or_else(|| Status::unknown("")))?;
        }
        Ok(None)
    }
}

/// Takes the first message off, if it is whole.
fn split_frame(received: &mut BytesMut) -> Result<Option<Bytes>, CallError> {
    let Some(&[compressed, a, b, c, d]) = received.first_chunk::<5>() else { return Ok(None) };
    if compressed != 0 {
        return Err(CallError::unknown("the answer is compressed, which nobody asked for"));
    }
    let whole = 5 + u32::from_be_bytes([a, b, c, d]) as usize;
    if received.len() < whole {
        received.reserve(whole - received.len());
        return Ok(None);
    }
    Ok(Some(received.split_to(whole).freeze().slice(5..)))
}

fn malformed(error: prost::DecodeError) -> CallError {
    CallError::unknown(format!("the answer is malformed: {error}"))
}

fn broken(error: h2::Error) -> CallError {
    CallError::unknown(format!("the connection broke: {error}"))
}

/// Prefixes a message with gRPC's five bytes: not compressed, and its length.
pub(super) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(0);
    frame.put_u32(length as u32);
    // Cannot fail: the buffer grows.
    let _ = message.encode(&mut frame);
    frame.freeze()
}

fn unframe<M: Message + Default>(mut body: Bytes) -> Result<M, CallError> {
    let whole = body.len() >= 5 && {
        let (compressed, length) = (body.get_u8(), body.get_u32() as usize);
        compressed == 0 && body.len() == length
    };
    if !whole {
        return Err(CallError::unknown("the answer is not one whole gRPC message"));
    }
    M::decode(body).map_err(malformed)
}

async fn read_body(body: &mut RecvStream) -> Result<Bytes, h2::Error> {
    let mut whole = Bytes::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        // Answers are small: nearly always one part.
        whole = if whole.is_empty() { part } else { Bytes::from([&whole[..], &part].concat()) };
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refusals_before_a_proposal_are_failures() {
        for (code, text, outcome) in [
            (Code::InvalidArgument, "etcdserver: request is too large", Outcome::Fail),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
                Outcome::Fail,
            ),
            (Code::ResourceExhausted, "etcdserver: too many requests", Outcome::Fail),
            (Code::Unknown, "etcdserver: too many requests", Outcome::Fail),
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                Outcome::Unknown,
            ),
            (Code::Unavailable, "etcdserver: leader changed", Outcome::Unknown),
            (Code::Unavailable, "etcdserver: no leader", Outcome::Unknown),
            (Code::Unavailable, "etcdserver: request timed out", Outcome::Unknown),
            (Code::Unavailable, "etcdserver: server stopped", Outcome::Unknown),
            (Code::Unknown, "raft proposal dropped", Outcome::Unknown),
            (Code::Internal, "", Outcome::Unknown),
        ] {
            assert_eq!(outcome_of(&Status::new(code, text)), outcome, "{code:?} {text}");
        }
    }

    #[test]
    fn a_frame_comes_back_and_a_cut_one_is_unknown() {
        let put = api::etcdserverpb::PutRequest { key: "k".into(), ..Default::default() };
        let framed = frame(&put);
        assert_eq!(unframe::<api::etcdserverpb::PutRequest>(framed.clone()), Ok(put));
        let cut = framed.slice(..framed.len() - 1);
        let error = unframe::<api::etcdserverpb::PutRequest>(cut).unwrap_err();
        assert_eq!(error.outcome, Outcome::Unknown);
    }
}
